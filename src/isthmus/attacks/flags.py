"""Signs that a robust accuracy may be too good: each a sentence with what to do about it.

They are cheap to see and decide nothing; after AutoAttack's checks (Croce & Hein 2020, ``flags_doc``) and the lists of
Athalye et al. 2018 and Carlini et al. 2019. Whether gradients are masked takes a diagnosis of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from isthmus.attacks.result import RobustResult

BLIND = 0.02
"""Share of gradients that may be exactly zero without a flag."""

SCORE_BASED = ("square", "search", "search-all", "uniform")


def flags(result: RobustResult) -> tuple[str, ...]:
    """What speaks against taking the result at its word; empty where nothing does."""
    return tuple(
        flag
        for flag in (_blind(result), _masked(result), _random(result), _invalid(result), _unconfirmed(result))
        if flag
    )


def _blind(result: RobustResult) -> str | None:
    looks, blind = int(result.ledger.backwards.sum()), int(result.ledger.blind.sum())
    if blind <= BLIND * looks:
        return None
    return (
        f"{100 * blind / looks:.0f}% of the gradients that attacks saw were exactly zero: they looked at saturated "
        "logits or a constant piece of the model. Attack with a loss that does not saturate (dlr, margin, log_odds), "
        "in higher precision, or around the layer that blocks the gradient."
    )


def _masked(result: RobustResult) -> str | None:
    by = [attack for attack in result.broken_by if attack is not None]
    blind = sum(attack.partition("-")[0] in SCORE_BASED or attack in SCORE_BASED for attack in by)
    gradient = any(attack not in SCORE_BASED and attack != "clean" for attack in result.attacks)
    if not gradient or blind <= 0.01 * len(result):
        return None
    return (
        f"Random search broke {blind} of {len(result)} examples that gradients had left: gradients mislead here. "
        "Expect a stronger or adaptive attack to find more."
    )


def _random(result: RobustResult) -> str | None:
    if not result.random:
        return None
    return (
        "The model answers at random: examples are broken by its average over fresh draws. Attack with averaged "
        'gradients (suite="rand", or eot=20).'
    )


def _invalid(result: RobustResult) -> str | None:
    count = int(result.invalid.sum())
    if count == 0:
        return None
    return (
        f"{count} of {len(result)} examples were set aside, since logits or gradients became NaN or infinite; they "
        "count as neither robust nor broken."
    )


def _unconfirmed(result: RobustResult) -> str | None:
    count = result.unconfirmed
    if count == 0:
        return None
    if result.random:
        return (
            f"{count} of {len(result)} examples count as robust, although a test found them wrong on average with 99% "
            "confidence during the attack: the final reading, on draws of its own, finds them right. At this level a "
            "test errs once in a hundred examples; if it is many more, the model's draws are not independent."
        )
    return (
        f"{count} of {len(result)} examples count as robust, although an attack broke them, since a further forward "
        "pass at the end did not confirm it: the model's answer to an image seems to depend on the rest of the batch "
        "(batch statistics?) or on earlier calls. Show it one image at a time (batch_size=1), and judge it as it will "
        "be used."
    )


def all_zero(gradient: Tensor) -> Tensor:
    """Rows whose gradient is exactly zero everywhere."""
    return ~gradient.flatten(1).any(1)
