"""How often is the classifier right on clean images?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from isthmus import metrics
from isthmus.checks.at_chance import likely_cause
from isthmus.checks.views import (
    MEAN,
    chance,
    clean_logits,
    column,
    extreme,
    finite,
    headlines,
    in_mode,
    interval,
    labels,
    listed,
    measured,
    not_finite,
    percent,
)
from isthmus.core.config import Component
from isthmus.core.types import CheckResult, Figure, Mark, Metric, Section, Series, Status, Table

if TYPE_CHECKING:
    from isthmus.checks.context import Context

_CONFUSIONS_SHOWN = 3
_CLASSES_SHOWN = 30


class Config(Component):
    """``level`` is that of every interval."""

    name: Literal["accuracy"] = "accuracy"
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95


def run(context: Context, config: Config) -> CheckResult:
    """Accuracy with its Wilson interval, in mean mode and, where there is one, in stochastic mode.

    Fails where the accuracy in mean mode is not above chance: where the interval's lower end does not exceed
    the accuracy of the best constant answer, which is the share of the most frequent label (1/C where all
    examples have the same label); the reason then names the likely cause. Warns where logits are NaN or infinite:
    such an answer counts as wrong; where the two largest logits of an image are equal (``ties``); and where the images
    of the first batch differ from what the model's batch normalisation remembers
    (:mod:`isthmus.models.batch_statistics`).

    Arrays: ``label``, ``predicted`` (−1 where logits are not finite) and ``correct`` (and ``stochastic_...``), one
    per example; ``confusion``, counts of (true, predicted), C×C, of the finite answers.
    """
    truth = labels(context)
    arrays: dict[str, NDArray[Any]] = {"label": truth}
    found: dict[str, Metric] = {}
    missing: dict[str, int] = {}
    for mode, logits in _answers(context).items():
        answered = finite(logits)
        predicted = np.where(answered, logits.argmax(axis=1), -1)
        missing[mode] = int((~answered).sum())
        arrays[in_mode("predicted", mode)] = predicted
        arrays[in_mode("correct", mode)] = predicted == truth
        found[in_mode("accuracy", mode)] = metrics.accuracy(predicted == truth, config.level)
    if "stochastic_correct" in arrays:
        difference = metrics.paired_difference(arrays["correct"], arrays["stochastic_correct"], config.level)
        found["stochastic_gain"] = difference
    found |= {
        in_mode("not_finite", mode): metrics.proportion(count, truth.size, config.level)
        for mode, count in missing.items()
        if count
    }
    arrays["confusion"] = _confusion(truth, arrays["predicted"], context.num_classes)
    constant = chance(truth, context.num_classes)
    status, reason = _judge(found["accuracy"], constant, not_finite(missing, "count as wrong"))
    if status is Status.FAIL:
        reason = f"{reason} {likely_cause(context, truth, arrays['confusion'], constant)}".rstrip()
    if ties := _ties(context.logits.numpy()):
        status = Status.WARN if status is Status.PASS else status
        found["ties"] = metrics.proportion(ties, truth.size, config.level)
        reason += (
            f" The two largest logits of {ties} images are equal: argmax takes the first class, on clean and attacked "
            "images alike."
        )
    if unusual := _unusual(context):
        status = Status.WARN if status is Status.PASS else status
        reason += f" {unusual}"
    if context.draws > 1:
        reason += (
            f" The classifier answers at random; other checks average {context.draws} draws, this one as many as it "
        )
        reason += "takes to know the average."
    return CheckResult(
        check="accuracy",
        status=status,
        reason=reason,
        metrics=found,
        details={
            "chance": constant,
            "per_class": _per_class(truth, arrays["correct"], context.num_classes, config.level),
            "draws": context.draws,
        },
        arrays=arrays,
    )


def _answers(context: Context) -> dict[str, NDArray[Any]]:
    """Logits of each mode; of a foreign model that answers at random, the ln of probabilities averaged over many draws.

    As many as tell which class leads on average (:mod:`isthmus.attacks.engine.averages`), as for images under attack.
    """
    import torch

    from isthmus.attacks.engine.batch import Batch
    from isthmus.attacks.engine.counted_model import CountedModel
    from isthmus.attacks.engine.verifier import Verifier
    from isthmus.models.modes import AveragedDraws

    found = dict(clean_logits(context))
    if isinstance(context.model, AveragedDraws):
        judge = Verifier(CountedModel(AveragedDraws(context.model.model, 1, context.seed).eval()), context.threat)
        batch = Batch(context.images, context.labels, context.keys)
        parts = torch.split(torch.arange(len(batch), device=batch.images.device), context.batch_size)
        found[MEAN] = np.concatenate([judge.clean(batch.take(rows)).cpu().numpy() for rows in parts])
    return found


def _ties(logits: NDArray[np.float32]) -> int:
    """How many images have two largest logits that are equal."""
    top = np.partition(logits[finite(logits)], -2, axis=1)[:, -2:]
    return int((top[:, 0] == top[:, 1]).sum())


def _unusual(context: Context) -> str | None:
    from isthmus.checks.context import answer
    from isthmus.models import batch_statistics

    model, images, keys = context.model, context.images[: context.batch_size], context.keys
    return batch_statistics.warning(model, lambda shown: answer(model, shown, keys[: len(shown)]), images)


def _confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    answered = predicted >= 0
    counts = np.bincount((truth * classes + predicted)[answered], minlength=classes * classes)
    return counts.reshape(classes, classes)


def _per_class(truth: NDArray[Any], correct: NDArray[Any], classes: int, level: float) -> list[dict[str, Any]]:
    """Recall of each class, in the order of the classes; classes without examples are not measured."""
    right, n = np.bincount(truth[correct], minlength=classes), np.bincount(truth, minlength=classes)
    return [metrics.proportion(int(k), int(m), level).model_dump() for k, m in zip(right, n, strict=True)]


def _judge(accuracy: Metric, constant: float, missing: str) -> tuple[Status, str]:
    assert accuracy.interval is not None
    said = f"{percent(accuracy.value)} of {accuracy.n} clean images are classified correctly{interval(accuracy)}"
    if accuracy.interval.low <= constant:
        return (
            Status.FAIL,
            f"{said}, which is not above what one constant answer reaches, {percent(constant)}{missing}.",
        )
    status = Status.WARN if missing else Status.PASS
    return status, f"{said}; one constant answer would reach {percent(constant)}{missing}."


def section(results: Mapping[str, CheckResult]) -> Section:
    """Accuracy by class, the most frequent confusions, and the column "clean accuracy" (of each mode)."""
    shown = measured(results)
    columns = {"clean accuracy": column(shown, "accuracy")}
    if stochastic := column(shown, "stochastic_accuracy"):
        columns["clean accuracy, stochastic"] = stochastic
    blocks: list[Figure | Table] = [_by_class(shown), *_confusions(shown)] if shown else []
    question = "How often is the classifier right on clean images?"
    return Section("Accuracy", question, tuple(blocks), columns, headlines(shown, "accuracy", "clean accuracy"))


def _by_class(shown: Mapping[str, CheckResult]) -> Figure:
    series, weakest = [], []
    for name, result in shown.items():
        recalls = [Metric.model_validate(entry) for entry in result.details["per_class"]]
        known = [(k, r) for k, r in enumerate(recalls) if r.value is not None]
        hardest = sorted(known, key=lambda pair: pair[1].value or 0.0)
        least = percent(hardest[0][1].value)
        classes = [str(k) for k, r in hardest if percent(r.value) == least]
        which = f"class{'es' if len(classes) > 1 else ''} {listed(classes)}"
        if len(classes) > 5:
            which = f"{len(classes)} of {len(known)} classes"
        alike = len(classes) == len(known) > 1
        weakest.append(
            f"{name} is {f'right {least} of the time on every class' if alike else f'weakest on {which} ({least})'}"
        )
        # A thousand classes make no readable plot; the hardest are the ones to look at.
        series.append(_recall_series(name, sorted(hardest[:_CLASSES_SHOWN], key=lambda pair: pair[0])))
    reading = "; ".join(weakest) + "." if len(shown) <= 3 else _extremes(shown)
    marks = (Mark("one constant answer", y=max(r.details["chance"] for r in shown.values())),)
    return Figure("Accuracy by class", reading, "class", "accuracy", tuple(series), marks, y_range=(0.0, 1.0))


def _recall_series(name: str, recalls: list[tuple[int, Metric]]) -> Series:
    return Series(
        name,
        x=tuple(float(k) for k, _ in recalls),
        y=tuple(r.value or 0.0 for _, r in recalls),
        low=tuple(r.interval.low for _, r in recalls if r.interval),
        high=tuple(r.interval.high for _, r in recalls if r.interval),
        style="points",
        group=name,
    )


def _extremes(shown: Mapping[str, CheckResult]) -> str:
    found = column(shown, "accuracy")
    most, least = extreme(found), extreme(found, largest=False)
    high, low = (percent(found[each.names[0]].value) for each in (most, least))
    if not most.others:
        return f"Over all classes, {'all are' if len(found) > 1 else f'{most.names[0]} is'} right {high} of the time."
    verbs = ["is" if len(each.names) == 1 else "are" for each in (most, least)]
    return (
        f"Over all classes, {listed(most.names)} {verbs[0]} most often right ({high}) and {listed(least.names)} "
        f"least often ({low}){most.caveat}."
    )


def _confusions(shown: Mapping[str, CheckResult]) -> list[Table]:
    """The most frequent confusions, a row for each classifier; no table where none occurred twice."""
    found = {name: _repeated(result.arrays["confusion"]) for name, result in shown.items()}
    if not any(found.values()):
        return []
    rows = [
        (name, int((~result.arrays["correct"]).sum()), ", ".join(found[name]) or "none")
        for name, result in shown.items()
    ]
    reading = (
        f"Class taken for another, and how many images: confusions of at least two images, at most {_CONFUSIONS_SHOWN} "
        "of each classifier."
    )
    return [Table("Most frequent confusions", reading, ("classifier", "wrong", "confusions"), tuple(rows))]


def _repeated(confusion: NDArray[np.int64]) -> list[str]:
    """Confusions of at least two examples, the most frequent first: "5→6 (3)"."""
    wrong = confusion - np.diag(confusion.diagonal())
    places = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS_SHOWN]
    pairs = [(int(place // len(wrong)), int(place % len(wrong))) for place in places]
    return [f"{true}→{predicted} ({wrong[true, predicted]})" for true, predicted in pairs if wrong[true, predicted] > 1]
