"""Attacks that propose once for a whole batch, rather than run by run through the queue."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from isthmus.attacks.attack import SingleShotAttack
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.inputs import check_proposals


def propose(
    context: EvaluationContext, label: str, attack: SingleShotAttack, rows: Tensor, stage: int
) -> Iterator[None]:
    """Try such an attack on these examples, with new keys for each restart and only on those left.

    Yields after every batch, when the state is in order.

    Args:
        label: of the stage; the keys of its runs derive from it.
        stage: its position, as the state counts.

    Raises:
        ConfigError: it returned something other than one image per example.
    """
    state = context.state
    for restart in range(attack.runs_in(context.threat, context.classes)):
        left = rows[state.robust[rows] & (state.done[rows] <= restart)]
        for part in torch.split(left, context.size) if len(left) else ():
            _once(context, label, attack, part, (stage, restart))
            yield


def _once(
    context: EvaluationContext, label: str, attack: SingleShotAttack, rows: Tensor, number: tuple[int, int]
) -> None:
    stage, restart = number
    state, batch = context.state, context.batch(rows)
    own = batch.folded("single_shot/run", label, restart)
    tries = state.tries[rows].to(context.device)
    before = context.counted_model.backward_passes
    with context.booked(rows):
        given = attack.perturb(context.counted_model, own, context.threat)
        proposals = check_proposals(given, batch.images, label)
        if context.counted_model.backward_passes > before:  # a gradient that is zero leaves the image where it was
            state.zero_gradients[rows] += (proposals == batch.images).flatten(1).all(1).cpu()
        checked = context.verifier.proposals(proposals, batch, tries)
    state.tries[rows] = tries.cpu()
    state.approach(rows, checked, stage, restart)
    margin = torch.where(checked.finite, checked.margin, torch.inf).float().cpu()
    state.margin[rows] = state.margin[rows].minimum(margin)
    state.run[rows[state.note(rows, checked, stage)]] = restart
    state.done[rows], state.scores[rows, restart] = restart + 1, margin
