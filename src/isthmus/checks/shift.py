"""How much accuracy is lost on test sets that were gathered anew, or changed, after the classifier was made?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny

from isthmus import metrics
from isthmus.checks.views import correct, interval, labels, listed, measured, percent, points
from isthmus.core import config as configs
from isthmus.core import registry
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.types import CheckResult, Figure, Headline, Metric, Section, Series, Status, Table

if TYPE_CHECKING:
    from isthmus.checks.context import Context
    from isthmus.data.shift.shifted import Shifted


def _set(given: Any) -> Component:
    """A shifted test set or a data set by its name, or with options."""
    name = given.get("name") if isinstance(given, Mapping) else str(given).partition(":")[0]
    return configs.component("shifts" if name in registry.names("shifts") else "data", given)


_ONE = BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)  # a single set by its name
TestSet = SerializeAsAny[Annotated[Component, BeforeValidator(_set)]]


class Config(Component):
    """Which test sets.

    Attributes:
        sets: published sets under shift (``isthmus list shifts``: "cifar10_1", "imagenet_a", …, with options as
            mappings), or data sets ("folder:PATH", "svhn"), of which the test split counts. A single one may stand
            after a colon, ``shift:cifar10_1:v4``.
        classes: names of the classifier's classes in the order of its logits, by which labels are matched. CIFAR-10's
            sets know their own; ImageNet's need them. A data set without them must have its classes in this very order.
        paired: the sets hold the audited data set's own test images in their order, changed: each audited image is
            compared with itself. CIFAR-10-C and ImageNet-C are paired whatever this says.
        threshold: a loss of accuracy above it is worth a warning.
    """

    argument: ClassVar[str | None] = "sets"
    name: Literal["shift"] = "shift"
    sets: Annotated[tuple[TestSet, ...], Field(min_length=1), _ONE]
    classes: tuple[str, ...] | None = None
    paired: bool = False
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.05


PAIRED = ("cifar10_c", "imagenet_c")
_TELLING = ("version", "corruption", "severity")  # options that tell one set of a name from another


def run(context: Context, config: Config) -> CheckResult:
    """Accuracy on each set, and how much less that is than on the audited images, with intervals, in mean mode.

    Of the same images before and after, the interval of the difference is Newcombe's for paired proportions; of other
    images, his for independent ones. Warns where the whole interval of a loss lies above ``config.threshold``.

    Arrays: ``correct`` of the audited images, and ``NAME_correct`` of each set, bool.

    Raises:
        ConfigError: two sets with one name.
        DataError: a set is missing or damaged, has images of another shape or other classes, or lacks the audited
            images where they are to be paired.
    """
    from isthmus.checks.shift_outcomes import right

    clean = correct(context.logits.numpy(), labels(context))
    names = _names(config.sets)
    found: dict[str, Metric] = {"accuracy": metrics.accuracy(clean)}
    arrays: dict[str, NDArray[Any]] = {"correct": clean}
    facts = []
    for number, (name, given) in enumerate(zip(names, config.sets, strict=True)):
        shifted = _loaded(given, context, config)
        paired = config.paired or given.name in PAIRED
        rows = _rows(shifted, context) if paired else None
        judged = shifted if rows is None else _select(shifted, rows)
        there = right(context.model, judged, context.batch_size, seed=context.seed).numpy()
        found[f"{name}_accuracy"] = metrics.accuracy(there)
        found[f"{name}_loss"] = (metrics.paired_difference if paired else metrics.difference)(there, clean)
        arrays[f"{name}_correct"] = there
        facts.append({"name": name, "said": shifted.name, "paired": paired, "n": len(there)})
        context.progress(number + 1, len(names))
    status, reason = _judge(found, facts, config.threshold)
    return CheckResult(
        check="shift", status=status, reason=reason, metrics=found, details={"sets": facts}, arrays=arrays
    )


def _names(sets: Sequence[Component]) -> list[str]:
    """A short name for each: the component's, with what tells it from others of the kind."""
    names = []
    for given in sets:
        told = [str(value) for key, value in given.plain(given_only=True).items() if key in _TELLING]
        folder = [str(getattr(given, "path", "")).rstrip("/").rpartition("/")[2]] if given.name == "folder" else []
        names.append("_".join([given.name, *told, *folder]))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"The test set {twice[0]!r} is given twice; leave one out.")
    return names


def _loaded(given: Component, context: Context, config: Config) -> Shifted:
    from isthmus.data.shift.shifted import load

    if given.name in registry.names("shifts"):
        shifted = load(given, config.classes)
    else:
        shifted = _test_split(given, context, config)
    if len(shifted.classes) != context.num_classes:
        raise DataError(
            f"{shifted.name} was loaded for {len(shifted.classes)} classes, and the classifier has "
            f"{context.num_classes}; give `classes` in the order of its logits."
        )
    shape = tuple(context.images.shape[1:])
    if shifted.split.shape != shape:
        raise DataError(
            f"{shifted.name} has images of {'×'.join(map(str, shifted.split.shape))}, and the audited ones are "
            f"{'×'.join(map(str, shape))} (C, H, W); give a set of the same shape."
        )
    return shifted


def _test_split(given: Component, context: Context, config: Config) -> Shifted:
    """The test split of a data set, with its labels in the order of the classifier's classes."""
    import torch

    from isthmus.data.loading import load
    from isthmus.data.shift.shifted import Shifted, relabelled

    data = load(given)
    if config.classes is None and data.num_classes != context.num_classes:
        raise DataError(
            f"{data.name} has {data.num_classes} classes, and the classifier {context.num_classes}; give `classes`, "
            "their names in the order of its logits."
        )
    order, classes = relabelled(data.test.labels, data.classes, config.classes, data.name)
    positions = torch.arange(len(data.test))
    return Shifted(data.name, classes, data.test.labelled(order), positions, len(data.test), data.fingerprint)


def _rows(shifted: Shifted, context: Context) -> NDArray[np.int64]:
    """Where in the set each audited image is.

    Raises:
        DataError: one of them is not there, or has another label.
    """
    wanted = np.arange(len(context.labels)) if context.indices is None else context.indices.cpu().numpy()
    place = {int(position): row for row, position in enumerate(shifted.positions.tolist())}
    missing = [int(position) for position in wanted if int(position) not in place]
    if missing:
        raise DataError(
            f"{shifted.name} is to be paired with the audited images, but lacks {len(missing)} of them, the first at "
            f"position {missing[0]}; audit images of the same test set, without a limit on this one."
        )
    rows = np.array([place[int(position)] for position in wanted], dtype=np.int64)
    others = int((shifted.split.labels.numpy()[rows] != labels(context)).sum())
    if others:
        raise DataError(
            f"{shifted.name} is to be paired with the audited images, but {others} of {len(rows)} labels differ: these "
            "are not the same images. Audit the test set that it was made from, in its order."
        )
    return rows


def _select(shifted: Shifted, rows: NDArray[np.int64]) -> Shifted:
    from dataclasses import replace

    import torch

    chosen = torch.from_numpy(rows)
    return replace(shifted, split=shifted.split.select(chosen), positions=shifted.positions[chosen])


def _judge(found: Mapping[str, Metric], facts: Sequence[Mapping[str, Any]], threshold: float) -> tuple[Status, str]:
    losses = {fact["said"]: found[f"{fact['name']}_loss"] for fact in facts}
    above = [name for name, loss in losses.items() if loss.interval and loss.interval.low > threshold]
    worst = max(losses, key=lambda name: losses[name].value or 0.0)
    loss = losses[worst]
    size = points(loss.value or 0.0)
    said = f"{'' if len(losses) == 1 else 'most of all '}on {worst}, by {size}{interval(loss)}"
    lost = "Accuracy falls" if (loss.value or 0.0) > 0 else "Accuracy does not fall; it changes"
    if above:
        return Status.WARN, f"{lost} {said}; the loss is above {percent(threshold)} on {listed(above)}."
    return Status.PASS, f"{lost} {said}; no loss is shown to be above {percent(threshold)}."


def section(results: Mapping[str, CheckResult]) -> Section:
    """Losses as a figure, everything as a table, and a column for the largest loss."""
    shown = measured(results)
    return Section(
        "Natural shift",
        "How much accuracy is lost on test sets that were gathered anew, or changed?",
        (_figure(shown), _table(shown)) if shown else (),
        {"loss under shift": {name: _worst(result)[1] for name, result in shown.items()}},
        {name: Headline(_worst(result)[1], "accuracy lost", note=_worst(result)[0]) for name, result in shown.items()},
    )


def _worst(result: CheckResult) -> tuple[str, Metric]:
    """The set on which most is lost, and how much."""
    losses = ((each["said"], result.metrics[f"{each['name']}_loss"]) for each in result.details["sets"])
    return max(losses, key=lambda pair: pair[1].value or 0.0)


def _figure(shown: Mapping[str, CheckResult]) -> Figure:
    series = []
    for name, result in shown.items():
        losses = [result.metrics[f"{each['name']}_loss"] for each in result.details["sets"]]
        series.append(
            Series(
                name,
                tuple(float(place) for place in range(1, len(losses) + 1)),
                tuple(loss.value or 0.0 for loss in losses),
                tuple(loss.interval.low if loss.interval else 0.0 for loss in losses),
                tuple(loss.interval.high if loss.interval else 0.0 for loss in losses),
                style="points",
                group=name,
            )
        )
    said = dict.fromkeys(each["said"] for result in shown.values() for each in result.details["sets"])
    order = "; ".join(f"{place}: {name}" for place, name in enumerate(said, 1))
    return Figure("Accuracy lost", f"{order}.", "test set", "accuracy lost", tuple(series))


def _table(shown: Mapping[str, CheckResult]) -> Table:
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for classifier, result in shown.items():
        for each in result.details["sets"]:
            compared = "the same images" if each["paired"] else "other images"
            values = (result.metrics[f"{each['name']}_{what}"] for what in ("accuracy", "loss"))
            rows.append((classifier, each["said"], compared, result.metrics["accuracy"], *values))
    return Table(
        "Test sets under shift",
        "The loss is accuracy on the audited images less that on the set; its interval is paired where both are the "
        "same images.",
        ("classifier", "set", "compared with", "accuracy, audited", "accuracy", "loss"),
        tuple(rows),
    )
