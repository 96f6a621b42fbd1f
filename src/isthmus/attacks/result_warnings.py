"""Signs that a robust accuracy may be too high: sentences with advice.

They are cheap to compute and change no result; after AutoAttack's checks (Croce & Hein 2020, ``flags_doc``) and the
lists of Athalye et al. 2018 and Carlini et al. 2019. Whether gradients are masked is decided by a diagnosis
(:mod:`isthmus.diagnosis`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.attacks.result import RobustResult

BLIND = 0.02
"""Fraction of gradients that may be exactly zero without a warning."""

SCORE_BASED = ("square", "uniform")
"""Attacks that use no gradient; their labels begin with these names."""


def warnings(result: RobustResult) -> tuple[str, ...]:
    """All warnings about a result; empty if there are none."""
    kinds = (_zero_gradients, _masked, _random, _invalid, _unconfirmed)
    return tuple(text for kind in kinds if (text := kind(result)) is not None)


def _zero_gradients(result: RobustResult) -> str | None:
    gradients, zero = int(result.state.backwards.sum()), int(result.state.zero_gradients.sum())
    if zero <= BLIND * gradients:
        return None
    return (
        f"{100 * zero / gradients:.0f}% of the gradients were exactly zero: the logits are saturated, or a part of the "
        "model is constant. Attack with a loss that does not saturate (dlr, margin, log_odds), in higher precision, or "
        "around the layer that blocks the gradient."
    )


def _masked(result: RobustResult) -> str | None:
    by = [attack for attack in result.broken_by if attack is not None]
    count = sum(map(_is_score_based, by))
    gradient = any(attack != "clean" and not _is_score_based(attack) for attack in result.attacks)
    if not gradient or count <= 0.01 * len(result):
        return None
    return (
        f"Random search broke {count} of {len(result)} examples that gradient attacks had not: gradients mislead "
        "here. A stronger or adaptive attack will probably break more."
    )


def _is_score_based(label: str) -> bool:
    return label.partition("-")[0] in SCORE_BASED


def _random(result: RobustResult) -> str | None:
    if not result.random:
        return None
    return (
        "The model is random: examples are broken by its average over fresh draws. Attack with averaged gradients "
        '(suite="rand", or eot=20).'
    )


def _invalid(result: RobustResult) -> str | None:
    count = int(result.invalid.sum())
    if count == 0:
        return None
    return (
        f"{count} of {len(result)} examples are invalid: logits or gradients became NaN or infinite. They count as "
        "neither robust nor broken."
    )


def _unconfirmed(result: RobustResult) -> str | None:
    count = result.unconfirmed
    if count == 0:
        return None
    if result.random:
        return (
            f"{count} of {len(result)} examples count as robust, although a test during the attack found them wrong on "
            "average with 99% confidence: the final average, over independent draws, is right. At this level a test is "
            "wrong for one example in a hundred; if this count is much larger, the model's draws are not independent."
        )
    return (
        f"{count} of {len(result)} examples count as robust, although an attack broke them: a further forward pass at "
        "the end did not confirm it. The model's predictions seem to depend on the rest of the batch (batch "
        "statistics?) or on earlier calls. Evaluate one image at a time (batch_size=1), as the model will be used."
    )
