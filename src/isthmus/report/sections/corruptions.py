"""Accuracy against severity, error by corruption, and the corrupted images."""

from __future__ import annotations

from isthmus.core.display import Figure, Gallery, Headline, Picture, Section, Table
from isthmus.core.format import corruption_title, listed, percent, points
from isthmus.core.types import CheckResult, Metric
from isthmus.metrics import CORRUPTIONS
from isthmus.report.sections.common import MEAN, Results, Row, column, curve, extreme, label, with_metrics

_TITLES = {"cifar10_c": "CIFAR-10-C", "imagenet_c": "ImageNet-C", "mnist_c": "MNIST-C"}
_SUMMARY = {
    "mean_error": "mean error",
    "added_error": "added to the clean error",
    "mce": "mCE",
    "relative_mce": "relative mCE",
}
_PICTURES = 5  # in a row


def section(results: Results) -> Section:
    """All blocks and columns of the check."""
    shown = with_metrics(results)
    question = "How often does it misclassify corrupted images?"
    columns = {"error under corruption": column(shown, "mean_error", mode=MEAN)}
    if mce := {name: m for name, m in column(shown, "mce", mode=MEAN).items() if m.value is not None}:
        columns["mCE"] = mce
    if not shown:
        return Section("Corruptions", question, (), columns)
    headlines = {name: _headline(result) for name, result in shown.items()}
    blocks: list[Figure | Gallery | Table] = [_curve(shown), _summary(shown)]
    blocks.append(_by_severity(*next(iter(shown.items()))) if len(shown) == 1 else _by_classifier(shown))
    return Section("Corruptions", question, (*blocks, *_gallery(shown)), columns, headlines)


def _headline(result: CheckResult) -> Headline:
    """The benchmark's number if there is a baseline, and otherwise the mean error."""
    mce = result.metrics.get("mce", mode=MEAN)
    if mce is not None and mce.value is not None:
        return Headline(mce, "mCE; 1 is as many errors as the baseline makes")
    number = len(result.details["corruptions"])
    return Headline(result.metrics.one("mean_error", mode=MEAN), f"mean error under {number} corruptions")


def _curve(shown: Results) -> Figure:
    series = []
    for name, result in shown.items():
        places = {float(s): result.metrics.one("accuracy", mode=MEAN, severity=s) for s in result.details["severities"]}
        if clean := result.metrics.get("accuracy", mode=MEAN):
            places = {0.0: clean, **places}
        series.append(curve(name, list(places), list(places.values()), group=name))
    x_label = "severity (0: clean images)"
    return Figure("Accuracy under corruption", _reading(shown), x_label, "accuracy", tuple(series), y_range=(0.0, 1.0))


def _reading(shown: Results) -> str:
    errors = column(shown, "mean_error", mode=MEAN)
    ranked = sorted(errors, key=lambda name: errors[name].value or 0.0)
    lowest = [f"{percent(errors[name].value)} for {name}" for name in ranked[:3]]
    more = f" (no lower for {len(ranked) - 3} others)" if len(ranked) > 3 else ""
    settings = sorted({_setting(result) for result in shown.values()})
    caution = "" if len(settings) == 1 else " Compare only classifiers with the same corruptions and severities."
    return f"Mean error over {listed(settings)}: {listed(lowest)}{more}.{caution}"


def _setting(result: CheckResult) -> str:
    """What was measured, in words."""
    details = result.details
    title = _TITLES[details["parameters"]]
    source = f"of {title}" if details["benchmark"] else f"with {title}'s parameters"
    severities = listed([str(severity) for severity in details["severities"]])
    return f"{len(details['corruptions'])} of {len(CORRUPTIONS)} corruptions {source} at severities {severities}"


def _summary(shown: Results) -> Table:
    modes = [(name, mode, result) for name, result in shown.items() for mode in result.details["modes"]]
    used = [key for key in _SUMMARY if any(result.metrics.get(key, mode=mode) for _, mode, result in modes)]
    rows: list[Row] = [
        (label(name, mode), *(result.metrics.get(key, mode=mode) for key in used)) for name, mode, result in modes
    ]
    reading = "Each image counts with all its corrupted versions, and intervals are over images."
    if "mce" in used:
        reading += " An mCE of 1 is as many errors as the baseline makes."
    unmeasured = {c: why for result in shown.values() for c, why in result.details["skipped"].items()}
    for name, why in unmeasured.items():
        reading += f" Not measured: {corruption_title(name)}. {why}"
    return Table("Error under corruption", reading, ("classifier", *(_SUMMARY[key] for key in used)), tuple(rows))


def _by_severity(name: str, result: CheckResult) -> Table:
    """One classifier: accuracy under each corruption at each severity."""
    severities, found = result.details["severities"], result.metrics
    has_clean = found.get("accuracy", mode=MEAN) is not None
    rows: list[Row] = []
    for corruption in result.details["corruptions"]:
        at = {"mode": MEAN, "corruption": corruption}
        row = [found.one("accuracy", severity=severity, **at) for severity in severities]
        row.append(found.one("mean_error", **at))
        row += [found.one("added_error", **at)] if has_clean else []
        rows.append((corruption_title(corruption), *row))
    added = ("added to the clean error",) if has_clean else ()
    errors = _errors(result)
    least, most = extreme(errors, largest=False).names, extreme(errors).names
    reading = f"{name} has an error of {percent(errors[most[0]].value)} under each of {len(errors)} corruptions."
    if least != most:
        reading = (
            f"The error of {name} is smallest under {listed(least)} ({percent(errors[least[0]].value)}) and largest "
            f"under {listed(most)} ({percent(errors[most[0]].value)})."
        )
    titles = (f"accuracy at severity {severity}" for severity in severities)
    return Table("By corruption", reading, ("corruption", *titles, "mean error", *added), tuple(rows))


def _errors(result: CheckResult) -> dict[str, Metric]:
    """Mean error in mean mode, by corruption."""
    corruptions = result.details["corruptions"]
    return {corruption_title(c): result.metrics.one("mean_error", mode=MEAN, corruption=c) for c in corruptions}


def _by_classifier(shown: Results) -> Table:
    """Several classifiers: the mean error under each corruption."""
    errors = {name: _errors(result) for name, result in shown.items()}
    names = [corruption_title(corruption) for corruption in CORRUPTIONS]
    known = {c: [found[c] for found in errors.values() if c in found] for c in names}
    rows: list[Row] = [(c, *(found.get(c) for found in errors.values())) for c in names if known[c]]
    values = {c: [metric.value or 0.0 for metric in found] for c, found in known.items() if found}
    spread = {c: max(found) - min(found) for c, found in values.items()}
    most = max(spread.values())
    widest = listed([c for c in spread if points(spread[c]) == points(most)])
    reading = f"Mean error over severities. The largest difference is under {widest}: {points(most)}."
    if points(most) == points(0.0):
        reading = "Mean error over severities. It is the same under each corruption."
    return Table("By corruption", reading, ("corruption", *errors), tuple(rows))


def _gallery(shown: Results) -> list[Gallery]:
    """The first image under each corruption, once."""
    for result in shown.values():
        if "gallery" in result.arrays:
            severity = result.details["severities"][-1]
            names, images = result.details["corruptions"], result.arrays["gallery"]
            pictures = tuple(Picture(image, corruption_title(name)) for name, image in zip(names, images, strict=True))
            rows = tuple(
                (f"{k + 1} to {len(pictures[: k + _PICTURES])}", pictures[k : k + _PICTURES])
                for k in range(0, len(pictures), _PICTURES)
            )
            return [Gallery("The corruptions", f"The first image at severity {severity}.", rows)]
    return []
