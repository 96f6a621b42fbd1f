"""Run folders of five stand-in classifiers, and stand-in checks to show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.report import page, sections
from isthmus.report.loading import load_all
from tests.report import report_standins, standin_checks


@pytest.fixture(autouse=True)
def stand_in_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "find", standin_checks.find)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return report_standins.write_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def html(runs: list[Path]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "find", standin_checks.find)
        return page.render(load_all(runs))
