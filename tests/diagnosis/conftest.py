"""A shorter black-box test for models whose verdict does not depend on its strength."""

import pytest

from isthmus.diagnosis import black_box_attacks, ensemble_tests


@pytest.fixture
def short_black_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """The substitute is trained for a fifth of its steps, and random search has a fifth of its queries."""
    monkeypatch.setattr(black_box_attacks, "STEPS", 30)
    monkeypatch.setattr(ensemble_tests, "QUERIES", 100)
