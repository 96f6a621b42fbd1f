"""AutoAttack's class (Croce & Hein 2020, github.com/fra31/auto-attack), with isthmus's attacks and verification."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine import inputs
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import CLEAN, RobustResult
from isthmus.attacks.threats import THREATS, Threat
from isthmus.core.errors import ConfigError, FileError, unknown
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.data import given

log = logging.getLogger(__name__)

NORMS = {"Linf": "linf", "L2": "l2", "L1": "l1"}
VERSIONS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "custom": (),
}
"""AutoAttack's versions and the attacks of each, in their order."""


@dataclass
class Options:
    """Base of an attack's options under AutoAttack's names. Setting one that is not listed is an error."""

    def __setattr__(self, name: str, value: object) -> None:
        known = [field.name for field in fields(self)]
        if name not in known:
            raise ConfigError(
                unknown(f"option of AutoAttack's {type(self).__name__}", name, known)
                + " Others are options of isthmus's own attacks; run these by isthmus.robust_accuracy."
            )
        super().__setattr__(name, value)


@dataclass
class APGDOptions(Options):
    """``apgd``: the attacks apgd-ce and apgd-dlr."""

    n_iter: int = 100
    n_restarts: int = 5
    eot_iter: int = 1

    def attack(self, loss: str, targets: int = 0) -> dict[str, Any]:
        """The attack in isthmus."""
        options = {"steps": self.n_iter, "restarts": self.n_restarts, "eot": self.eot_iter}
        return {"name": "apgd", "loss": loss, "targets": targets, **options}


@dataclass
class TargetedAPGDOptions(APGDOptions):
    """``apgd_targeted``: the attack apgd-t."""

    n_restarts: int = 1
    n_target_classes: int = 9


@dataclass
class FABOptions(Options):
    """``fab``: the attacks fab, and fab-t, which has one restart whatever ``n_restarts`` is."""

    n_iter: int = 100
    n_restarts: int = 5
    n_target_classes: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def attack(self, targets: int) -> dict[str, Any]:
        """The attack in isthmus."""
        shared = {"steps": self.n_iter, "alpha_max": self.alpha_max, "eta": self.eta, "beta": self.beta}
        return {"name": "fab", "targets": targets, "restarts": 1 if targets else self.n_restarts, **shared}


@dataclass
class SquareOptions(Options):
    """``square``: the attack square."""

    n_queries: int = 5000
    n_restarts: int = 1
    p_init: float = 0.8

    def attack(self) -> dict[str, Any]:
        """The attack in isthmus."""
        return {"name": "square", "queries": self.n_queries, "restarts": self.n_restarts, "p_init": self.p_init}


class AutoAttack:
    """Drop-in for ``autoattack.AutoAttack``, evaluated by :func:`isthmus.robust_accuracy`.

    Attacks and budgets are AutoAttack's, and their options are set in the same way, as in
    ``adversary.apgd.n_restarts = 1``. What differs: the model is evaluated in eval mode and left as it was, each
    adversarial image is verified, and the result depends on neither ``bs`` nor the order of the images.

    Attributes:
        result: the last evaluation, with intervals, passes, and warnings; None before one, and for ``eps=0``.
        results: of each attack, after :meth:`run_standard_evaluation_individual`.
        attacks_to_run: names of the attacks.
        apgd, apgd_targeted, fab, square: options of the attacks.

    Args:
        model: from images in [0, 1] to logits; a module, or a function. A function's own model must be in eval mode.
        norm: "Linf", "L2" or "L1".
        eps: radius of the ball; with 0 no image is changed.
        seed: of all random starts; None is 0.
        verbose: show progress, and log accuracies to the logger ``isthmus.compat.autoattack``.
        attacks_to_run: for ``version="custom"``: "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square". "fab" is
            untargeted here, as in AutoAttack.
        version: "standard", "plus", "rand" or "custom".
        is_tf_model: only False.
        device: the model's; only checked. None for any.
        log_path: a file that receives the logged lines.

    Raises:
        ModelError: the model is neither a module nor a function.
        ConfigError: an unknown norm, version or attack (with a suggestion), or an argument that cannot be honoured.
    """

    def __init__(  # AutoAttack's own signature, hence more arguments than elsewhere
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: str | torch.device | None = None,
        log_path: str | Path | None = None,
    ) -> None:
        if is_tf_model:
            raise ConfigError("is_tf_model=True: isthmus attacks PyTorch models alone. Export the model to PyTorch.")
        if norm not in NORMS:
            raise ConfigError(unknown("norm", norm, NORMS))
        if version not in VERSIONS:
            raise ConfigError(unknown("version", version, VERSIONS))
        if version != "custom" and attacks_to_run:
            raise ConfigError(f"attacks_to_run is for version='custom'; got version={version!r}.")
        self.model, self.norm, self.epsilon = as_module(model), norm, eps
        self.seed, self.verbose, self.log_path = inputs.check_seed(0 if seed is None else seed), verbose, log_path
        self.threat: Threat | None = None if eps == 0 else THREATS[NORMS[norm]](eps)
        self.device = _device(self.model, device)
        self.result: RobustResult | None = None
        self.results: dict[str, RobustResult | None] = {}
        self.set_version(version)
        self.attacks_to_run += attacks_to_run
        for name in self.attacks_to_run:
            self._attack(name)

    def set_version(self, version: str = "standard") -> None:
        """Reset attacks and options to those of a version."""
        if version not in VERSIONS:
            raise ConfigError(unknown("version", version, VERSIONS))
        self.version = version
        self.attacks_to_run: list[str] = list(VERSIONS[version])
        self.apgd, self.apgd_targeted = APGDOptions(), TargetedAPGDOptions()
        self.fab, self.square = FABOptions(), SquareOptions()
        if version == "rand":
            self.apgd.n_restarts, self.apgd.eot_iter = 1, 20
        elif version == "standard":
            self.apgd.n_restarts = 5 if self.norm == "L1" else 1
            self.apgd_targeted.n_target_classes = 5 if self.norm == "L1" else 9

    def run_standard_evaluation(
        self,
        x_orig: Float[Tensor, "n c h w"],
        y_orig: Int[Tensor, " n"],
        bs: int = 250,
        return_labels: bool = False,
        state_path: str | Path | None = None,
    ) -> Any:
        """Run the attacks one after another, each on the images that are still robust.

        Args:
            x_orig: images in [0, 1].
            y_orig: true classes.
            bs: images in a batch.
            return_labels: also return the predicted classes of the returned images.
            state_path: file from which the same call resumes. Unlike AutoAttack's it keeps the adversarial images; it
                is of another format.

        Returns:
            For each image its adversarial image, or the image itself if none was found or it was misclassified.

        Raises:
            DataError, ModelError, ConfigError, FileError: see :func:`isthmus.robust_accuracy`.
        """
        found, self.result = self._run(self.attacks_to_run, x_orig, y_orig, bs, state_path)
        if self.verbose:
            self._report(self.attacks_to_run, self.result)
        return (found, self._predicted(found, bs).to(given.tensor(y_orig, "labels"))) if return_labels else found

    def run_standard_evaluation_individual(
        self, x_orig: Float[Tensor, "n c h w"], y_orig: Int[Tensor, " n"], bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Run each attack by itself on all images; what :meth:`run_standard_evaluation` returns, by attack."""
        by_attack, self.results = {}, {}
        for name in self.attacks_to_run:
            found, self.result = self._run([name], x_orig, y_orig, bs)
            self.results[name] = self.result
            by_attack[name] = (
                (found, self._predicted(found, bs).to(given.tensor(y_orig, "labels"))) if return_labels else found
            )
            if self.verbose and self.result is not None:
                self._log(f"robust accuracy by {name.upper()}: {self.result.accuracy:.2%}")
        return by_attack

    def clean_accuracy(self, x_orig: Float[Tensor, "n c h w"], y_orig: Int[Tensor, " n"], bs: int = 250) -> float:
        """Fraction of the images that the model classifies as their label."""
        examples = inputs.examples(x_orig, y_orig)
        return float((self._predicted(examples.images, bs) == examples.labels.cpu()).double().mean())

    def _attack(self, name: str) -> dict[str, Any]:
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "apgd-ce": lambda: self.apgd.attack("ce"),
            "apgd-dlr": lambda: self.apgd.attack("dlr"),
            "apgd-t": lambda: self.apgd_targeted.attack("dlr", self.apgd_targeted.n_target_classes),
            "fab": lambda: self.fab.attack(0),
            "fab-t": lambda: self.fab.attack(self.fab.n_target_classes),
            "square": self.square.attack,
        }
        if name not in made:
            raise ConfigError(
                unknown("attack of AutoAttack", name, made) + " isthmus.robust_accuracy runs isthmus's other attacks."
            )
        return made[name]()

    def _run(
        self, names: Sequence[str], x: Tensor, y: Tensor, bs: int, state_path: str | Path | None = None
    ) -> tuple[Tensor, RobustResult | None]:
        """The images to return, and the evaluation."""
        suite = [self._attack(name) for name in names]
        if not suite:
            raise ConfigError("attacks_to_run is empty. For version='custom' give, for example, ['apgd-ce', 'fab-t'].")
        x = given.tensor(x, "images")
        x_adv = x.clone()
        if self.threat is None:
            inputs.examples(x, y)  # checks them
            return x_adv, None
        options = RunOptions(save_to=None if state_path is None else Path(state_path), progress=self.verbose)
        result = robust_accuracy(self.model, self._placed(x), y, self.threat, suite, bs, self.seed, options=options)
        changed = (result.adversarial != result.examples.images.cpu()).flatten(1).any(1)
        x_adv[changed.to(x_adv.device)] = result.adversarial[changed].to(x_adv)
        return x_adv, result

    def _predicted(self, images: Tensor, bs: int) -> Int[Tensor, " n"]:
        """Predicted classes, on the CPU."""
        images = self._placed(images.float())
        device = device_of(self.model, images)
        with preserve_state(self.model, device, self.seed):
            counted_model = CountedModel(self.model)
            found = []
            for part in torch.split(images, inputs.check_whole(bs, "bs")):
                keys = torch.arange(len(part), device=device)
                found.append(counted_model.logits(part.to(device), keys).argmax(1).cpu())
        return torch.cat(found)

    def _placed(self, images: Tensor) -> Tensor:
        """Images on the device of a function, which is not known otherwise."""
        return images.to(self.device) if isinstance(self.model, Function) else images

    # --- the log ---

    def _report(self, names: Sequence[str], result: RobustResult | None) -> None:
        """Log the lines by which AutoAttack's users know a result."""
        if result is None:
            self._log("eps is 0: no image was changed")
            return
        accuracies = list(result.by_attack.values())
        self._log(f"initial accuracy: {result.by_attack[CLEAN]:.2%}")
        for name, accuracy in zip(names, accuracies[1:], strict=True):
            self._log(f"robust accuracy after {name.upper()}: {accuracy:.2%}")
        sizes = result.sizes[result.broken]
        largest = float(sizes.max()) if len(sizes) else 0.0
        self._log(f"max {self.norm} perturbation: {largest:.5f}")
        low, high = (100 * bound for bound in (result.interval.low, result.interval.high))
        self._log(f"robust accuracy: {result.accuracy:.2%} (95% interval {low:.2f} to {high:.2f}, n = {len(result)})")
        for warning in result.warnings:
            self._log(f"Warning: {warning}")

    def _log(self, line: str) -> None:
        log.info("%s", line)
        if self.log_path is None:
            return
        try:
            with Path(self.log_path).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise FileError(f"Cannot write log_path={str(self.log_path)!r}: {error.strerror}.") from None


class Function(nn.Module):
    """A function from images to logits as a module, without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """What the function returns."""
        return self.function(images)


def as_module(model: object) -> nn.Module:
    """A module, the module of a method such as ``model.forward``, or a function as a module.

    Raises:
        ModelError: it is none of these.
    """
    owner = getattr(model, "__self__", None)
    if isinstance(owner, nn.Module) and model in (owner.forward, owner.__call__):
        model = owner
    elif callable(model) and not isinstance(model, nn.Module | type):
        model = Function(model)
    inputs.check_model(model)
    assert isinstance(model, nn.Module)
    return model


def _device(model: nn.Module, given: str | torch.device | None) -> torch.device | None:
    """The device that was given; a ConfigError if the model is on another."""
    if given is None:
        return None
    try:
        wanted = torch.device(given)
    except RuntimeError:
        raise ConfigError(f"device must be a device of PyTorch, such as 'cpu' or 'cuda:0'; got {given!r}.") from None
    actual = device_of(model, torch.empty(0, device="meta"))  # meta: the model has no tensors
    if actual.type not in ("meta", wanted.type) or (actual.type != "meta" and wanted.index not in (None, actual.index)):
        raise ConfigError(f"device={str(given)!r}, but the model is on {actual}. Call model.to({str(given)!r}) first.")
    return wanted
