"""Attacks on any classifier: threat models, the engine that judges, and one file per attack.

::

    from isthmus.attacks import Linf, robust_accuracy
    result = robust_accuracy(model, images, labels, Linf(8 / 255), "standard")
    result.accuracy, result.interval, result.by_attack

Needs nothing of isthmus's own models: any ``nn.Module`` from images N×C×H×W in [0, 1] to logits N×K will do.

* :func:`~isthmus.attacks.api.robust_accuracy` at one ε, :func:`~isthmus.attacks.api.curve` along several; both give a
  :class:`~isthmus.attacks.result.RobustResult`, and Ctrl-C an :class:`~isthmus.attacks.engine.evaluate.Interrupted`
  that holds one.
* :func:`~isthmus.attacks.minimal_norm.minimal_norms` asks how small a perturbation suffices;
  :func:`~isthmus.attacks.foolbox_protocol.scan_fgsm` and :func:`~isthmus.attacks.foolbox_protocol.bisect_pgd` ask as
  Foolbox 1 did.
* ``verify_witnesses`` recomputes a result from its witnesses: it is :func:`isthmus.attacks.verify.verify` under a name
  that leaves the module its own.
* :func:`~isthmus.attacks.transfer.transferred` makes an attack of another model's witnesses, and
  :func:`~isthmus.attacks.unbounded.ascend` follows the gradient without bounds, to see whether it leads anywhere.
* :class:`~isthmus.attacks.threats.Linf`, :class:`~isthmus.attacks.threats.L2` and
  :class:`~isthmus.attacks.threats.L1` are the threat models; :func:`~isthmus.attacks.threats.parse` and
  :func:`~isthmus.attacks.threats.parse_grid` read them from text.
"""

from isthmus.attacks.api import curve, robust_accuracy
from isthmus.attacks.engine.evaluate import Interrupted
from isthmus.attacks.foolbox_protocol import bisect_pgd, scan_fgsm
from isthmus.attacks.minimal_norm import MinimalNorms, minimal_norms
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import L1, L2, Linf, Threat, parse, parse_grid
from isthmus.attacks.transfer import transferred
from isthmus.attacks.unbounded import Ascent, ascend
from isthmus.attacks.verify import Verification
from isthmus.attacks.verify import verify as verify_witnesses

__all__ = [
    "L1",
    "L2",
    "Ascent",
    "Interrupted",
    "Linf",
    "MinimalNorms",
    "RobustResult",
    "Threat",
    "Verification",
    "ascend",
    "bisect_pgd",
    "curve",
    "minimal_norms",
    "parse",
    "parse_grid",
    "robust_accuracy",
    "scan_fgsm",
    "transferred",
    "verify_witnesses",
]
