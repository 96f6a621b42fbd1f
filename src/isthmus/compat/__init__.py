"""Calls of other libraries, answered by isthmus: AutoAttack's class and RobustBench's ``benchmark``.

::

    from isthmus.compat import AutoAttack                  # was: from autoattack import AutoAttack
    adversary = AutoAttack(model, norm="Linf", eps=8 / 255)
    x_adv = adversary.run_standard_evaluation(x, y, bs=250)
    adversary.result                                       # the RobustResult behind it

Arguments and returned values are those of the other library; an argument that isthmus cannot honour is an error that
says what to do instead. torchattacks' call needs no adapter: ``PGD(steps=10).bind(model, 8 / 255)(images, labels)``.
"""

from __future__ import annotations

from isthmus.compat.autoattack import AutoAttack
from isthmus.compat.robustbench import benchmark

__all__ = ["AutoAttack", "benchmark"]
