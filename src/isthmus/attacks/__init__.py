"""Attacks on any classifier: threat models, the engine that verifies, and one file per attack.

::

    from isthmus.attacks import APGD, Linf, robust_accuracy
    result = robust_accuracy(model, images, labels, Linf(8 / 255), "standard")
    result = robust_accuracy(model, images, labels, Linf(8 / 255), [APGD(loss="dlr", targets=9), "square"])
    result.accuracy, result.interval, result.by_attack

They need none of isthmus's own models: any ``nn.Module`` from images N×C×H×W in [0, 1] to logits N×K is accepted.

* :func:`~isthmus.attacks.api.robust_accuracy` evaluates at one ε and returns a
  :class:`~isthmus.attacks.result.RobustResult`; :func:`~isthmus.attacks.api.curve` evaluates at several and returns a
  :class:`~isthmus.attacks.security_curve.SecurityCurve` of them. Ctrl-C raises
  :class:`~isthmus.attacks.engine.evaluation.Interrupted`, which holds a result.
* :func:`~isthmus.attacks.minimal_norm.minimal_norms` finds how small a perturbation suffices;
  :func:`~isthmus.attacks.foolbox_protocol.scan_fgsm` and :func:`~isthmus.attacks.foolbox_protocol.bisect_pgd` measure
  it as Foolbox 1 did.
* ``verify_adversarial`` is :func:`isthmus.attacks.verify.verify`: it recomputes a result from its adversarial images.
* :func:`~isthmus.attacks.transfer.transferred` makes an attack of another model's adversarial images, and
  :meth:`~isthmus.attacks.unbounded.Unbounded.ascend` follows the gradient without bounds, as a check of the gradient.
* :class:`~isthmus.attacks.threats.Linf`, :class:`~isthmus.attacks.threats.L2` and
  :class:`~isthmus.attacks.threats.L1` are the threat models; :func:`~isthmus.attacks.threats.parse` and
  :func:`~isthmus.attacks.threats.parse_grid` read them from text.
* ``PGD(steps=10).bind(model, 8 / 255)`` is a function of images and labels, for training loops; see
  :class:`~isthmus.attacks.bound_attack.BoundAttack`.
* Every attack is a frozen class, such as :class:`~isthmus.attacks.pgd.PGD`; it is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isthmus.attacks.api import curve, robust_accuracy
from isthmus.attacks.engine.evaluation import Interrupted
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.foolbox_protocol import bisect_pgd, scan_fgsm
from isthmus.attacks.minimal_norm import MinimalNorms, minimal_norms
from isthmus.attacks.result import RobustResult
from isthmus.attacks.security_curve import SecurityCurve
from isthmus.attacks.threats import L1, L2, Linf, Threat, parse, parse_grid
from isthmus.attacks.transfer import Transfer, transferred
from isthmus.attacks.unbounded import Ascent, Unbounded
from isthmus.attacks.verify import Verification
from isthmus.attacks.verify import verify as verify_adversarial

if TYPE_CHECKING:
    from isthmus.attacks.apgd import APGD
    from isthmus.attacks.cw import CW
    from isthmus.attacks.ddn import DDN
    from isthmus.attacks.fab import FAB
    from isthmus.attacks.fgsm import FGSM
    from isthmus.attacks.fmn import FMN
    from isthmus.attacks.multitargeted import MultiTargeted
    from isthmus.attacks.pgd import PGD
    from isthmus.attacks.race import Race
    from isthmus.attacks.rays import RayS
    from isthmus.attacks.square import Square
    from isthmus.attacks.uniform import Uniform

_LAZY = ("APGD", "CW", "DDN", "FAB", "FGSM", "FMN", "MultiTargeted", "PGD", "Race", "RayS", "Square", "Uniform")

__all__ = [
    "APGD",
    "CW",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "L1",
    "L2",
    "PGD",
    "Ascent",
    "Interrupted",
    "Linf",
    "MinimalNorms",
    "MultiTargeted",
    "Race",
    "RayS",
    "RobustResult",
    "RunOptions",
    "SecurityCurve",
    "Square",
    "Threat",
    "Transfer",
    "Unbounded",
    "Uniform",
    "Verification",
    "bisect_pgd",
    "curve",
    "minimal_norms",
    "parse",
    "parse_grid",
    "robust_accuracy",
    "scan_fgsm",
    "transferred",
    "verify_adversarial",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.lower()}"), name)
