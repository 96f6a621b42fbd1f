"""Does an image's answer depend on who else is in the batch, or is part of the model still in training mode?

Then a number depends on the batch size, and an adversarial image that was found in one batch fails in another.
"""

from __future__ import annotations

import torch

from isthmus import metrics
from isthmus.attacks.engine import rounding
from isthmus.core.errors import ModelError
from isthmus.core.types import Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import Finding, percent

SAME = 1e-3
"""Of the logits' size, above which answers differ by more than rounding."""


COMPANY = 7
"""Images that each one is shown with where the model cannot answer a single one."""


def moved(suspect: DiagnosisContext, rows: torch.Tensor) -> torch.Tensor:
    """By how much answers to some images change with their company, as a share of the logits' size; one each.

    Raises:
        ModelError: the model cannot answer a single image.
    """
    batch = suspect.examples.take(rows)
    together = suspect.logits(batch.images, batch.keys)
    singles = (batch.take(torch.tensor([row])) for row in range(len(rows)))
    alone = torch.cat([suspect.logits(each.images, each.keys) for each in singles])
    order = torch.arange(len(rows), device=batch.images.device)
    others = torch.cat([batch.images, 1 - batch.images.flip(0)])
    elsewhere = suspect.logits(others, torch.cat([batch.keys, batch.keys]))[order]
    unit = rounding.slack(together, 1.0).clamp(min=1e-12)
    change = torch.stack([(together - other).abs().amax(1) / unit for other in (alone, elsewhere)]).amax(0)
    return change.nan_to_num(0.0)  # where both are infinite


def examine(suspect: DiagnosisContext) -> Finding:
    """Compares answers in a batch, alone, and in the company of negatives."""
    if suspect.random:
        return Finding(
            test="companions", status=Status.SKIPPED, reason="A random model's answers differ whoever is in the batch"
        )
    rows = suspect.sample(most=16)
    try:
        change = moved(suspect, rows)
    except ModelError as error:
        if len(rows) <= COMPANY:
            raise
        suspect.judge_in_company(suspect.examples.take(rows[:COMPANY]).images)
        return Finding(
            test="companions",
            status=Status.FAIL,
            reason=f"The model cannot answer a single image; from here on, every image is judged in the company of the "
            f"same {COMPANY} others ({str(error).rstrip('.')})",
        )
    if (change > SAME).any():
        suspect.judge_alone()
    differ = metrics.proportion(int((change > SAME).sum()), len(change))
    still = [name or "the model" for name, module in suspect.model.named_modules() if module.training]
    status = Status.FAIL if (differ.value or 0) > 0 else Status.WARN if still else Status.PASS
    reason = "An image's answer does not depend on its company"
    if status == Status.FAIL:
        reason = (
            f"{percent(differ.value)} of answers depend on who else is in the batch; from here on, every "
            "image is judged alone"
        )
    elif still:
        reason += f", but parts of the model are in training mode: {', '.join(still[:3])}"
    return Finding(test="companions", status=status, reason=reason, metrics={"answers_differ": differ})
