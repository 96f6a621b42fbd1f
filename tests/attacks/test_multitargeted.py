"""MultiTargeted in ℓ1 on linear models, where its first step is exact."""

import pytest

from isthmus.attacks import MultiTargeted
from tests.attacks.linear_models import check_walls_in_l1


@pytest.mark.parametrize(("classes", "side", "seed", "eps"), [(2, 4, 0, 0.3), (3, 28, 0, 1.0), (10, 28, 1, 0.6)])
def test_in_l1_at_the_walls_of_the_box_robust_accuracy_is_the_closed_form(classes, side, seed, eps):
    check_walls_in_l1([MultiTargeted(steps=20, restarts=1)], classes, side, seed, eps)
