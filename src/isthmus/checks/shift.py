"""Accuracy lost on shifted test sets: gathered anew, or changed, after the classifier was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor, nn

from isthmus import metrics
from isthmus.checks.check import Check
from isthmus.checks.context import MEAN, Context, correct, predict
from isthmus.checks.other_data import labels_for, shape_text
from isthmus.core import config as configs
from isthmus.core import randomness, registry
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.format import interval, listed, percent, points
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.types import CheckResult, Metrics, Status
from isthmus.data.loading import load as load_data
from isthmus.data.shift.shifted import Shifted
from isthmus.data.shift.shifted import load as load_shifted
from isthmus.metrics import CORRUPTIONS, SEVERITIES

T = TypeVar("T")

PAIRED = ("cifar10_c", "cifar100_c", "imagenet_c", "imagenet_3dcc")
_DISTINGUISHING = ("version", "corruption", "severity")  # options that distinguish sets of one name


def _set(given: Any) -> Component:
    """A shifted test set or a data set by its name, or with options."""
    name = given.get("name") if isinstance(given, Mapping) else str(given).partition(":")[0]
    return configs.component("shifts" if name in registry.names("shifts") else "data", given)


_ONE = BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)  # a single set by its name
TestSet = SerializeAsAny[Annotated[Component, BeforeValidator(_set)]]


class Shift(Check):
    """Accuracy on each shifted test set, and the loss compared with the audited images, in mean mode.

    For the same images before and after, the interval of the loss is Newcombe's for paired proportions; for other
    images, his for independent ones. Warns if the whole interval of a loss lies above ``threshold``.

    Metrics: ``accuracy`` of the audited images, and ``accuracy`` and ``accuracy_loss`` by ``data``.

    Arrays: ``correct`` of the audited images, and ``NAME_correct`` of each set, bool.

    Attributes:
        sets: published sets under shift (``isthmus list shifts``: "cifar10_1", "imagenet_a", …, with options as
            mappings), or data sets ("folder:PATH", "svhn"), whose test split is used. The short form names a single
            one, ``shift:cifar10_1:v4``.
        classes: names of the classifier's classes in the order of its logits, by which labels are matched. CIFAR-10's
            sets know their own; ImageNet's need them. A data set must otherwise have its classes in this order.
        paired: the sets hold the audited data set's test images in their order, changed: each audited image is
            compared with itself. CIFAR-10-C and ImageNet-C are always paired.
        threshold: warn above this loss of accuracy.
    """

    argument: ClassVar[str | None] = "sets"
    name: Literal["shift"] = "shift"
    sets: Annotated[tuple[TestSet, ...], Field(min_length=1), _ONE]
    classes: tuple[str, ...] | None = None
    paired: bool = False
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.05

    def run(self, context: Context) -> CheckResult:
        """Measure accuracy on every set.

        Raises:
            ConfigError: two sets with one name.
            DataError: a set is missing or damaged, has images of another shape or other classes, or lacks the audited
                images although they are to be paired.
        """
        clean = correct(context.logits.numpy(), context.truth)
        names = _names(self.sets)
        found = [metrics.accuracy(clean).named("accuracy", mode=MEAN)]
        arrays: dict[str, NDArray[Any]] = {"correct": clean}
        facts = []
        for number, (name, given) in enumerate(zip(names, self.sets, strict=True)):
            shifted, paired = self._loaded(given, context), self.paired or given.name in PAIRED
            if paired:
                shifted = _paired(shifted, context)
            there = correct_predictions(context.model, shifted, context.batch_size, seed=context.seed).numpy()
            loss = (metrics.paired_difference if paired else metrics.difference)(there, clean)
            found += [
                metrics.accuracy(there).named("accuracy", mode=MEAN, data=name),
                loss.named("accuracy_loss", mode=MEAN, data=name),
            ]
            arrays[f"{name}_correct"] = there
            facts.append({"name": name, "title": shifted.name, "paired": paired, "n": len(there)})
            context.progress(number + 1, len(names))
        whole = Metrics(found)
        status, reason = self._judge(whole, facts)
        return CheckResult(
            check=self.name,
            status=status,
            reason=reason,
            metrics=whole,
            thresholds={"accuracy_loss": self.threshold},
            details={"sets": facts},
            arrays=arrays,
        )

    def _loaded(self, given: Component, context: Context) -> Shifted:
        if given.name in registry.names("shifts"):
            shifted = load_shifted(given, self.classes)
        else:
            shifted = self._test_split(given, context)
        if len(shifted.classes) != context.num_classes:
            raise DataError(
                f"{shifted.name} was loaded for {len(shifted.classes)} classes, and the classifier has "
                f"{context.num_classes}; give `classes` in the order of its logits."
            )
        shape = tuple(context.images.shape[1:])
        if shifted.split.shape != shape:
            raise DataError(
                f"{shifted.name} has images of {shape_text(shifted.split.shape)}, and the audited ones are "
                f"{shape_text(shape)} (C, H, W); give a set of the same shape."
            )
        return shifted

    def _test_split(self, given: Component, context: Context) -> Shifted:
        """The test split of a data set, with its labels in the order of the classifier's classes."""
        data = load_data(given)
        labels, positions = (
            labels_for(data.test.labels, data, self.classes, context.num_classes),
            torch.arange(len(data.test)),
        )
        classes = self.classes or tuple(data.classes)
        return Shifted(data.name, classes, data.test.labelled(labels), positions, len(data.test), data.fingerprint)

    def _judge(self, found: Metrics, facts: Sequence[Mapping[str, Any]]) -> tuple[Status, str]:
        losses = {fact["title"]: found.one("accuracy_loss", mode=MEAN, data=fact["name"]) for fact in facts}
        above = [title for title, loss in losses.items() if loss.interval and loss.interval.low > self.threshold]
        worst = max(losses, key=lambda title: losses[title].value or 0.0)
        loss = losses[worst]
        size = f"{'' if len(losses) == 1 else 'most of all '}on {worst}, by {points(loss.value or 0.0)}{interval(loss)}"
        falls = "Accuracy falls" if (loss.value or 0.0) > 0 else "Accuracy does not fall; it changes"
        if above:
            return Status.WARN, f"{falls} {size}; the loss is above {percent(self.threshold)} on {listed(above)}."
        return Status.PASS, f"{falls} {size}; no loss is shown to be above {percent(self.threshold)}."


def _names(sets: Sequence[Component]) -> list[str]:
    """A short name for each: the component's, with the options that distinguish it from others of its kind."""
    names = []
    for given in sets:
        options = [str(value) for key, value in given.plain(given_only=True).items() if key in _DISTINGUISHING]
        folder = [str(getattr(given, "path", "")).rstrip("/").rpartition("/")[2]] if given.name == "folder" else []
        names.append("_".join([given.name, *options, *folder]))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"The test set {twice[0]!r} is given twice; leave one out.")
    return names


def _paired(shifted: Shifted, context: Context) -> Shifted:
    """The audited images out of a set, in their order.

    Raises:
        DataError: one of them is missing, or has another label.
    """
    wanted = context.positions.tolist()
    place = {position: row for row, position in enumerate(shifted.positions.tolist())}
    missing = [position for position in wanted if position not in place]
    if missing:
        raise DataError(
            f"{shifted.name} is to be paired with the audited images, but lacks {len(missing)} of them, the first at "
            f"position {missing[0]}; audit images of the same test set, without a limit on this one."
        )
    rows = torch.tensor([place[position] for position in wanted])
    others = int((shifted.split.labels[rows].numpy() != context.truth).sum())
    if others:
        raise DataError(
            f"{shifted.name} is to be paired with the audited images, but {others} of {len(rows)} labels differ: these "
            "are not the same images. Audit the test set that it was made from, in its order."
        )
    return replace(shifted, split=shifted.split.select(rows), positions=shifted.positions[rows])


def correct_predictions(
    model: nn.Module, shifted: Shifted, batch_size: int = 256, restricted: bool = True, seed: int = 0
) -> Bool[Tensor, " n"]:
    """Whether each image is classified correctly, on the CPU, in the order of the set.

    The model is in eval mode meanwhile and afterwards as it was. If a logit is NaN or the greatest is infinite, the
    prediction counts as wrong. A stochastic mode draws an image's noise from its position in the published set and
    ``seed``.

    Args:
        model: from float images in [0, 1], N×C×H×W, to logits, one for each of ``shifted.classes``.
        batch_size: affects memory and time; results agree up to rounding.
        restricted: choose among the classes that the set's authors allow, which is how numbers on ImageNet-A are
            published; otherwise among all. Other sets have no such choice.

    Raises:
        ModelError: the model has another number of classes.
        DataError: a file cannot be read.
    """
    found = [
        shifted.predictions(logits, restricted) == labels
        for logits, labels in predicted(model, shifted, batch_size, seed)
    ]
    return torch.cat(found)


def predicted(
    model: nn.Module, shifted: Shifted, batch_size: int = 256, seed: int = 0
) -> Iterator[tuple[Float[Tensor, "b classes"], Int[Tensor, " b"]]]:
    """Logits and labels of each batch, on the CPU, in the order of the set; see :func:`correct_predictions`.

    The model is in eval mode until the last batch was taken, and afterwards as it was.
    """
    device = device_of(model, shifted.positions)
    with preserve_state(model, device, seed), torch.no_grad():
        for images, labels, positions in shifted.batches(batch_size, device):
            yield predict(model, images, randomness.example_keys(seed, positions)), labels.cpu()


def correct_under_corruptions(
    model: nn.Module,
    given: str | Mapping[str, Any],
    classes: Sequence[str] | None = None,
    corruptions: Sequence[str] = CORRUPTIONS,
    batch_size: int = 256,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, NDArray[np.bool_]]:
    """Outcomes of each corruption at all severities, 5×n, as :func:`isthmus.metrics.measured_mce` takes them.

    Args:
        given: the benchmark, "cifar10_c" or "imagenet_c", or its options without corruption and severity.
        classes: see :func:`isthmus.data.shift.shifted.load`.
        progress: called with (done, total) after each of the 5·len(corruptions) passes.

    Raises:
        ModelError, DataError: as :func:`correct_predictions`, or the corruptions are not all of the same images.
    """
    found = under_corruptions(
        given,
        classes,
        corruptions,
        lambda shifted: correct_predictions(model, shifted, batch_size, seed=seed),
        progress,
    )
    return {corruption: np.stack([right.numpy() for right in rows]) for corruption, rows in found.items()}


def under_corruptions(
    given: str | Mapping[str, Any],
    classes: Sequence[str] | None,
    corruptions: Sequence[str],
    measure: Callable[[Shifted], T],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, list[T]]:
    """What ``measure`` returns for each corruption at severities 1 to 5; see :func:`correct_under_corruptions`."""
    options = {"name": given} if isinstance(given, str) else dict(given)
    outcomes: dict[str, list[T]] = {}
    examples: str | None = None
    for number, corruption in enumerate(corruptions):
        rows = outcomes.setdefault(corruption, [])
        for severity in SEVERITIES:
            shifted = load_shifted({**options, "corruption": corruption, "severity": severity}, classes)
            if examples not in (None, shifted.examples):
                raise DataError(f"{shifted.name} is not of the same images as those before it; complete the copy.")
            examples = shifted.examples
            rows.append(measure(shifted))
            progress(number * len(SEVERITIES) + severity, len(corruptions) * len(SEVERITIES))
    return outcomes
