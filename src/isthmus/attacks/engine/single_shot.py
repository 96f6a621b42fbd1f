"""Attacks that propose once for a whole batch, rather than run by run through the queue."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from isthmus.attacks.attack import Attack
from isthmus.attacks.engine.context import Setting
from isthmus.attacks.engine.inputs import check_proposals


def propose(setting: Setting, attack: Attack, rows: Tensor, stage: int) -> Iterator[None]:
    """Try such an attack on these examples, with new keys for each restart and only on those left.

    Yields after every batch, when the ledger is in order.

    Args:
        stage: the attack's position in the ledger's count.

    Raises:
        ConfigError: it returned something other than one image per example.
    """
    ledger = setting.ledger
    for restart in range(attack.restarts):
        left = rows[ledger.standing[rows] & (ledger.done[rows] <= restart)]
        for part in torch.split(left, setting.size) if len(left) else ():
            _once(setting, attack, part, stage, restart)
            yield


def _once(setting: Setting, attack: Attack, rows: Tensor, stage: int, restart: int) -> None:
    assert attack.perturb is not None
    ledger, batch = setting.ledger, setting.batch(rows)
    own = batch.folded("single_shot/run", attack.label, restart)
    tries = ledger.tries[rows].to(setting.device)
    before = setting.oracle.backward_passes
    with setting.booked(rows):
        given = attack.perturb(attack.config, setting.oracle, own, setting.threat)
        proposals = check_proposals(given, batch.images, attack.label)
        if setting.oracle.backward_passes > before:  # a gradient that is zero leaves the image where it was
            ledger.blind[rows] += (proposals == batch.images).flatten(1).all(1).cpu()
        verdict = setting.judge.proposals(proposals, batch, tries)
    ledger.tries[rows] = tries.cpu()
    ledger.approach(rows, verdict, stage, restart)
    gap = torch.where(verdict.finite, verdict.gap, torch.inf).float().cpu()
    ledger.gap[rows] = ledger.gap[rows].minimum(gap)
    ledger.run[rows[ledger.note(rows, verdict, stage)]] = restart
    ledger.done[rows], ledger.scores[rows, restart] = restart + 1, gap
