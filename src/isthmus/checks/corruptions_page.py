"""How the page shows what corruptions do to classifiers, from stored results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.checks.views import MEAN, column, extreme, in_mode, listed, measured, percent, points
from isthmus.core.types import CheckResult, Figure, Gallery, Headline, Metric, Picture, Section, Series, Table
from isthmus.metrics import CORRUPTIONS

_TITLES = {"cifar10_c": "CIFAR-10-C", "imagenet_c": "ImageNet-C", "mnist_c": "MNIST-C"}
Row = tuple[str | float | Metric | None, ...]


def spoken(corruption: str) -> str:
    """A corruption's name in a sentence: "jpeg_compression" as "JPEG compression"."""
    return corruption.replace("_", " ").replace("jpeg", "JPEG")


def section(results: Mapping[str, CheckResult]) -> Section:
    """All blocks and columns of the check."""
    shown = measured(results)
    question = "How often is the classifier right on images that noise, blur, weather or compression has changed?"
    columns = {"error under corruption": column(shown, "mean_error")}
    if mce := {name: metric for name, metric in column(shown, "mce").items() if metric.value is not None}:
        columns["mCE"] = mce
    if not shown:
        return Section("Corruptions", question, (), columns)
    headlines = {name: _headline(result) for name, result in shown.items()}
    blocks: list[Figure | Gallery | Table] = [_curve(shown), _summary(shown)]
    blocks.append(_by_severity(*next(iter(shown.items()))) if len(shown) == 1 else _by_classifier(shown))
    return Section("Corruptions", question, (*blocks, *_gallery(shown)), columns, headlines)


def _headline(result: CheckResult) -> Headline:
    """The benchmark's number where there is a baseline, and otherwise the mean error."""
    mce = result.metrics.get("mce")
    if mce is not None and mce.value is not None:
        return Headline(mce, "mCE; 1 is as many errors as the baseline makes")
    number = len(result.details["modes"][MEAN]["corruptions"])
    return Headline(result.metrics["mean_error"], f"mean error under {number} corruptions")


def _metric(stored: Any) -> Metric:
    return Metric.model_validate(stored)


def _curve(shown: Mapping[str, CheckResult]) -> Figure:
    series = []
    for name, result in shown.items():
        found = result.details["modes"][MEAN]
        places = [
            (float(s), _metric(m)) for s, m in zip(result.details["severities"], found["by_severity"], strict=True)
        ]
        if found["clean"] is not None:
            places.insert(0, (0.0, _metric(found["clean"])))
        intervals = [(m.interval.low, m.interval.high) if m.interval else (m.value or 0.0,) * 2 for _, m in places]
        series.append(
            Series(
                name,
                x=tuple(s for s, _ in places),
                y=tuple(m.value or 0.0 for _, m in places),
                low=tuple(low for low, _ in intervals),
                high=tuple(high for _, high in intervals),
                group=name,
            )
        )
    label = "severity (0: clean images)"
    return Figure("Accuracy under corruption", _reading(shown), label, "accuracy", tuple(series), y_range=(0.0, 1.0))


def _reading(shown: Mapping[str, CheckResult]) -> str:
    ranked = sorted(shown, key=lambda name: shown[name].metrics["mean_error"].value or 0.0)
    said = [f"{name} errs on {percent(shown[name].metrics['mean_error'].value)}" for name in ranked[:3]]
    more = f" ({len(ranked) - 3} others on no less)" if len(ranked) > 3 else ""
    what = listed(sorted({_setting(result) for result in shown.values()}))
    alike = len({_setting(result) for result in shown.values()}) == 1
    caution = "" if alike else " These are different questions; compare only classifiers that were asked the same."
    return f"Mean over {what}: {listed(said)}{more}.{caution}"


def _setting(result: CheckResult) -> str:
    """What was measured, in words."""
    details = result.details
    number = len(details["modes"][MEAN]["corruptions"])
    title = _TITLES[details["parameters"]]
    source = f"of {title}" if details["benchmark"] else f"with {title}'s parameters"
    severities = listed([str(severity) for severity in details["severities"]])
    return f"{number} of {len(CORRUPTIONS)} corruptions {source} at severities {severities}"


def _summary(shown: Mapping[str, CheckResult]) -> Table:
    names = {"mean_error": "mean error", "added_error": "added to the clean error", "mce": "mCE"}
    names["relative_mce"] = "relative mCE"
    modes = [(name, mode, result) for name, result in shown.items() for mode in result.details["modes"]]
    used = [key for key in names if any(in_mode(key, mode) in result.metrics for _, mode, result in modes)]
    rows: list[Row] = [
        (
            name if mode == MEAN else f"{name} ({mode})",
            *(result.metrics.get(in_mode(key, mode)) for key in used),
        )
        for name, mode, result in modes
    ]
    reading = "Each image counts with all its corrupted versions, and intervals are over images."
    if "mce" in used:
        reading += " An mCE of 1 is as many errors as the baseline makes."
    unmeasured = {c: why for result in shown.values() for c, why in result.details["skipped"].items()}
    for name, why in unmeasured.items():
        reading += f" Not measured: {spoken(name)}. {why}"
    return Table("Error under corruption", reading, ("classifier", *(names[key] for key in used)), tuple(rows))


def _by_severity(name: str, result: CheckResult) -> Table:
    """One classifier: accuracy under each corruption at each severity."""
    found = result.details["modes"][MEAN]["corruptions"]
    rows: list[Row] = []
    for corruption, numbers in found.items():
        row: list[str | float | Metric | None] = [spoken(corruption), *map(_metric, numbers["accuracy"])]
        row.append(_metric(numbers["error"]))
        if "added" in numbers:
            row.append(_metric(numbers["added"]))
        rows.append(tuple(row))
    added = ("added to the clean error",) if "added" in next(iter(found.values())) else ()
    severities = (f"accuracy at severity {severity}" for severity in result.details["severities"])
    errors = {spoken(corruption): _metric(numbers["error"]) for corruption, numbers in found.items()}
    least, most = extreme(errors, largest=False).names, extreme(errors).names
    reading = f"{name} errs on {percent(errors[most[0]].value)} under each of {len(errors)} corruptions."
    if least != most:
        reading = (
            f"{name} errs least under {listed(least)} ({percent(errors[least[0]].value)}) and most under "
            f"{listed(most)} ({percent(errors[most[0]].value)})."
        )
    return Table("By corruption", reading, ("corruption", *severities, "mean error", *added), tuple(rows))


def _by_classifier(shown: Mapping[str, CheckResult]) -> Table:
    """Several classifiers: the mean error under each corruption."""
    errors = {
        name: {c: _metric(n["error"]) for c, n in result.details["modes"][MEAN]["corruptions"].items()}
        for name, result in shown.items()
    }
    rows: list[Row] = [
        (spoken(corruption), *(found.get(corruption) for found in errors.values()))
        for corruption in CORRUPTIONS
        if any(corruption in found for found in errors.values())
    ]
    spread = {
        c: max(values) - min(values)
        for c in CORRUPTIONS
        if (values := [found[c].value or 0.0 for found in errors.values() if c in found])
    }
    most = max(spread.values())
    widest = listed([spoken(c) for c in spread if points(spread[c]) == points(most)])
    reading = f"Mean error over severities. They differ most under {widest}, by {points(most)}."
    if points(most) == points(0.0):
        reading = "Mean error over severities. They are alike under each corruption."
    return Table("By corruption", reading, ("corruption", *errors), tuple(rows))


def _gallery(shown: Mapping[str, CheckResult]) -> list[Gallery]:
    """The first image under each corruption, once."""
    for result in shown.values():
        if "gallery" in result.arrays:
            severity = result.details["severities"][-1]
            names, images = result.details["shown"], result.arrays["gallery"]
            pictures = tuple(Picture(image, spoken(name)) for name, image in zip(names, images, strict=True))
            rows = tuple(
                (f"{k + 1} to {k + len(pictures[k : k + 5])}", pictures[k : k + 5]) for k in range(0, len(pictures), 5)
            )
            return [Gallery("The corruptions", f"The first image at severity {severity}.", rows)]
    return []
