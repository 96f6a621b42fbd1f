"""Certified lower bounds on robust accuracy, for the examples that attacks left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from isthmus.attacks.engine import inputs
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.evaluation import evaluate
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.engine.state import fingerprint
from isthmus.attacks.engine.verifier import Verifier
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat, parse
from isthmus.certificates import result_file
from isthmus.certificates.methods import BATCHED, METHODS, Problem, parts
from isthmus.certificates.network import CannotCertify, Network, read
from isthmus.certificates.regions import region
from isthmus.certificates.result import CertifiedResult
from isthmus.core import files
from isthmus.core.errors import ConfigError, FileError, unknown
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.progress import shown_progress
from isthmus.models import identity

Progress = Callable[[int, int], None]
"""Called with done and total examples."""

SAVE_EVERY = 20.0
"""Seconds between two writes of the file, at least."""

_OPEN, _CHEAP, _DONE = range(3)  # how far an example is


@dataclass(frozen=True)
class CertifyOptions:
    """Options of a certification.

    Attributes:
        methods: which of :data:`isthmus.certificates.methods.METHODS`, in any order; they run from cheap to dear, each
            on the examples that are still undecided.
        seconds_per_image: no further method or step begins for an image after this time.
        batch_size: images at a time of the methods that bound many at once.
        save_to: file that keeps the certification while it runs. The same call resumes an interrupted or killed one,
            and returns the result of a finished one at once. Delete the file afterwards.
        progress: True, the default, for a bar if stderr is a terminal or in a notebook; False for none; or a function
            that is called with (done, total) examples.
    """

    methods: tuple[str, ...] = METHODS
    seconds_per_image: float = 10.0
    batch_size: int = 32
    save_to: str | Path | None = None
    progress: Progress | bool | None = None


def certify(
    model: nn.Module,
    images: Float[Tensor, "n c h w"] | ArrayLike | Dataset[Any] | DataLoader[Any] | RobustResult,
    labels: Int[Tensor, " n"] | ArrayLike | None = None,
    threat: Threat | str | None = None,
    options: CertifyOptions | None = None,
) -> CertifiedResult:
    """Prove for as many examples as possible that no image within a threat is misclassified.

    The proofs hold for the numbers of a float32 forward pass (:mod:`isthmus.certificates.rounding`), and for every
    image that an attack of this library may propose (:mod:`isthmus.certificates.regions`).

    Args:
        model: from images in [0, 1] to logits, of the layers in :mod:`isthmus.certificates.network`; a bottleneck in
            mean mode. It is left as it was.
        images: as for :func:`isthmus.robust_accuracy`; or its result, whose examples, threat and adversarial images are
            then used: only examples that the attacks left are certified, and the result is a bracket.
        labels: true classes.
        threat: such as ``Linf(0.1)``, ``L2(0.5)`` or ``"linf:8/255"``.
        options: see :class:`CertifyOptions`.

    Raises:
        CannotCertify: a layer or a behaviour of the model without sound bounds; a ModelError.
        ModelError, DataError, ConfigError: as for :func:`isthmus.robust_accuracy`; a norm without bounds; an unknown
            method.
        FileError: ``save_to`` cannot be written, or holds another certification.
    """
    options = _checked(inputs.check_options(options, CertifyOptions))
    inputs.check_model(model)
    if isinstance(images, RobustResult):
        if labels is not None or threat is not None:
            raise ConfigError("Labels and threat are those of the robustness result; leave them out.")
        attacked, network = images, _network(model, images.threat, images.examples.images)
    else:
        chosen, examples = _threat(threat, labels), inputs.examples(images, labels)
        network = _network(model, chosen, examples.images)
        inputs.check_classes(examples, network.num_classes)
        attacked = evaluate(model, examples, chosen, [], options=RunOptions(progress=False))
    if attacked.targeted:
        raise ConfigError("A targeted evaluation has no robust accuracy to bound; certify images and labels.")
    if attacked.random:
        raise CannotCertify(f"{type(model).__name__}, whose predictions are random")
    inputs.check_classes(attacked.examples, network.num_classes)
    device = device_of(model, attacked.examples.images)
    with preserve_state(model, device, 0), torch.no_grad(), _shown(options) as report:
        return _Certification(model, network, attacked, options, device).run(report)


def _threat(threat: object, labels: object) -> Threat:
    inputs.check_threat_given(threat, labels)
    chosen = parse(threat) if isinstance(threat, str) else threat
    if not isinstance(chosen, Threat):
        raise ConfigError(f"A threat is an object such as Linf(0.1), or text such as linf:0.1; got {chosen!r}.")
    return chosen


def _network(model: nn.Module, threat: Threat, images: Tensor) -> Network:
    """The layers of a model, if there are bounds for them and for the norm."""
    region(threat, images[:1])
    return read(model, images)


def _checked(options: CertifyOptions) -> CertifyOptions:
    given: object = options.methods
    if not isinstance(given, tuple | list) or not given:
        raise ConfigError(f"methods are some of {', '.join(METHODS)}; got {given!r}.")
    for method in options.methods:
        if method not in METHODS:
            raise ConfigError(unknown("method", method, METHODS))
    if not options.seconds_per_image > 0:
        raise ConfigError(f"seconds_per_image must be positive; got {options.seconds_per_image!r}.")
    inputs.check_whole(options.batch_size, "batch_size")
    return replace(options, methods=tuple(method for method in METHODS if method in options.methods))


@contextmanager
def _shown(options: CertifyOptions) -> Iterator[Progress]:
    bar = shown_progress(options.progress, "certify", lambda update: lambda done, total: update(done / total, ""))
    with bar as report:
        yield report or (lambda done, total: None)


class _Certification:
    """One certification, and its file.

    Args:
        model: the classifier.
        network: its layers.
        attacked: the examples.
        options: checked.
        device: of the model.
    """

    def __init__(
        self, model: nn.Module, network: Network, attacked: RobustResult, options: CertifyOptions, device: torch.device
    ) -> None:
        self.network, self.options, self.device = network, options, device
        self.verifier, self.examples = Verifier(CountedModel(model), attacked.threat), attacked.examples
        n, examples = len(attacked), attacked.examples
        self.result = CertifiedResult(
            threat=attacked.threat,
            images=examples.images.cpu(),
            labels=examples.labels.cpu(),
            broken=attacked.broken.cpu().clone(),
            invalid=attacked.invalid.cpu(),
            adversarial=attacked.adversarial.cpu().clone(),
            attacks=(*attacked.attacks, *(name for name in ("milp",) if name in options.methods)),
            margins=torch.full((n, network.num_classes - 1), -torch.inf, dtype=torch.float64),
            methods=options.methods,
            method=torch.full((n,), -1),
            seconds=torch.zeros(n, dtype=torch.float64),
        )
        decided = self.result.broken | self.result.invalid
        self.done = torch.where(decided, _DONE, _OPEN)
        self.path = None if options.save_to is None else Path(options.save_to)
        self.saved = time.monotonic()
        self.evaluation = {
            "model": identity.fingerprint(model) + identity.structure(model),
            "examples": fingerprint([self.result.images, self.result.labels, self.result.adversarial, decided]),
            "options": repr((options.methods, options.seconds_per_image)),
        }

    def run(self, report: Progress) -> CertifiedResult:
        """Certify what is still open, from cheap to dear."""
        if self.path is not None and files.exists(self.path):
            self._resume(self.path)
        methods = self.options.methods
        cheap, dear = ([m for m in methods if (m in BATCHED) == batched] for batched in (True, False))
        size = self.options.batch_size
        try:
            for rows in parts(self.done == _OPEN, size):
                self._apply(rows, cheap)
                self.done[rows] = torch.where(self.result.certified[rows], _DONE, _CHEAP if dear else _DONE)
                self._advanced(report)
            for rows in parts(self.done == _CHEAP, 1):
                self._apply(rows, dear)
                self.done[rows] = _DONE
                self._advanced(report)
        finally:
            self._save()
        return self.result

    def _apply(self, rows: Tensor, methods: list[str]) -> None:
        """Improve the bounds of some examples, method by method, until all of them are certified."""
        if not methods:
            return
        result, began = self.result, time.monotonic()
        images = result.images[rows].to(self.device)
        problem = Problem(self.network, region(result.threat, images), result.labels[rows].to(self.device))
        for found in problem.bounds(methods, began + self.options.seconds_per_image * len(rows)):
            result.margins[rows] = torch.maximum(result.margins[rows], found.margins.cpu())
            proven = (result.margins[rows] > 0).all(1) & (result.method[rows] < 0)
            result.method[rows[proven]] = result.methods.index(found.method)
            if found.image is not None:
                self._try(rows, found.image)
            if bool((result.method[rows] >= 0).all()):
                break
        result.seconds[rows] += (time.monotonic() - began) / len(rows)

    def _try(self, rows: Tensor, image: Tensor) -> None:
        """Count an example as broken if the verifier accepts an image that the program found."""
        example = self.examples.take(rows).to(self.device)
        verified = self.verifier.proposals(image.to(self.device), example, torch.zeros_like(rows).to(self.device))
        if bool(verified.broken.all()) and bool(verified.finite.all()):
            self.result.broken[rows] = True
            self.result.adversarial[rows] = verified.images.cpu()

    def _advanced(self, report: Progress) -> None:
        report(int((self.done == _DONE).sum()), len(self.done))
        if time.monotonic() - self.saved > SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        if self.path is None:
            return
        tensors = {name: getattr(self.result, name) for name in result_file.COLUMNS}
        facts = result_file.Facts(
            threat=str(self.result.threat),
            attacks=self.result.attacks,
            methods=self.result.methods,
            complete=bool((self.done == _DONE).all()),
            evaluation=self.evaluation,
            done=tuple(self.done.tolist()),
        )
        result_file.write(self.path, tensors, facts)
        self.saved = time.monotonic()

    def _resume(self, path: Path) -> None:
        """Continue from the file.

        Raises:
            FileError: it is damaged, or of another certification.
        """
        tensors, facts = result_file.read(path)
        other = [name for name, digest in self.evaluation.items() if facts.evaluation.get(name) != digest]
        if other or len(facts.done) != len(self.done) or facts.threat != str(self.result.threat):
            named = ", ".join(other) or "examples or threat"
            raise FileError(
                f"{path} holds a certification with other {named}; delete it to begin anew, or choose another path."
            )
        names = ("broken", "adversarial", "margins", "method", "seconds")
        for name in names:
            getattr(self.result, name).copy_(tensors[name])
        self.done = torch.tensor(facts.done)
