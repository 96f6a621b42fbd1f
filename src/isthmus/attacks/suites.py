"""Suites: what to run for which claim, by name.

``standard`` is AutoAttack's (Croce & Hein 2020), attack by attack at its budgets. ``rand`` is AutoAttack's for random
models. ``ib`` is what Korshunova et al. 2021 brought the bottlenecks down with: AutoAttack's two APGD with restarts,
and MultiTargeted. ``fast`` is ours: the same trust for a fraction of the passes (:mod:`isthmus.attacks.race`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IN_L1 = {"standard": "standard-l1"}
"""AutoAttack has other budgets in ℓ1."""

_APGD = {"name": "apgd"}
LABELS: dict[str, Mapping[str, Any]] = {
    **{f"apgd-{loss}": _APGD | {"loss": loss} for loss in ("ce", "dlr", "margin", "log_odds", "probability")},
    **{f"apgd-{loss}-t": _APGD | {"loss": loss, "targets": 9} for loss in ("ce", "dlr", "margin", "log_odds")},
}
"""What results call attacks whose options are part of the label; such a label names the attack in a suite, too."""

STAGES = ("scout", "near", "search", "search-all")
"""Labels of the stages of ``fast`` that depend on the ones before."""

SUITES: dict[str, tuple[Mapping[str, Any] | str, ...]] = {
    "standard": (
        {"name": "apgd", "loss": "ce"},
        {"name": "apgd", "loss": "dlr", "targets": 9},
        {"name": "fab", "targets": 9},
        "square:5000",
    ),
    "standard-l1": (
        {"name": "apgd", "loss": "ce", "restarts": 5},
        {"name": "apgd", "loss": "dlr", "targets": 5},
        {"name": "fab", "targets": 9},
        "square:5000",
    ),
    "fast": ("race",),
    "ib": (
        {"name": "apgd", "loss": "ce", "restarts": 5},
        {"name": "apgd", "loss": "dlr", "restarts": 5},
        {"name": "multitargeted", "restarts": 10, "steps": 200},
    ),
    "rand": (
        {"name": "apgd", "loss": "ce", "eot": 20},
        {"name": "apgd", "loss": "dlr", "eot": 20},
    ),
}
