"""Accuracy and loss against severity, error and calibration by corruption, and the corrupted images."""

from __future__ import annotations

from isthmus.core.display import Block, Figure, Gallery, Headline, Section, Table
from isthmus.core.format import corruption_title, listed, number, percent, points
from isthmus.core.types import CheckResult, Metric
from isthmus.metrics import CORRUPTIONS
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_TITLES = {"cifar10_c": "CIFAR-10-C", "cifar100_c": "CIFAR-100-C", "imagenet_c": "ImageNet-C", "mnist_c": "MNIST-C"}
_SUMMARY = {
    "mean error": common.measured("mean_error"),
    "added to the clean error": common.measured("added_error"),
    "mCE": common.measured("mce"),
    "relative mCE": common.measured("relative_mce"),
}


def section(results: Results) -> Section:
    """All blocks and columns of the check."""
    shown = common.with_metrics(results)
    columns = {"error under corruption": common.column(shown, "mean_error", mode=MEAN)}
    if mce := {name: m for name, m in common.column(shown, "mce", mode=MEAN).items() if m.value is not None}:
        columns["mCE"] = mce
    blocks: tuple[Block, ...] = ()
    if shown:
        by_corruption = _by_severity(*next(iter(shown.items()))) if len(shown) == 1 else _by_classifier(shown)
        calibration = [_calibration(*next(iter(shown.items())))] if len(shown) == 1 else []
        blocks = (_curve(shown), _summary(shown), by_corruption, _losses(shown), *calibration, *_gallery(shown))
    question = "How often does it misclassify corrupted images?"
    return Section("Corruptions", question, blocks, columns, {name: _headline(each) for name, each in shown.items()})


def _headline(result: CheckResult) -> Headline:
    """The benchmark's number if there is a baseline, and otherwise the mean error."""
    mce = result.metrics.get("mce", mode=MEAN)
    if mce is not None and mce.value is not None:
        return common.headline(mce, "mCE; 1 is as many errors as the baseline makes")
    number = len(result.details["corruptions"])
    return common.headline(result.metrics.one("mean_error", mode=MEAN), f"mean error under {number} corruptions")


def _curve(shown: Results) -> Figure:
    series = []
    for name, result in shown.items():
        places = {float(s): result.metrics.one("accuracy", mode=MEAN, severity=s) for s in result.details["severities"]}
        if clean := result.metrics.get("accuracy", mode=MEAN):
            places = {0.0: clean, **places}
        series.append(common.curve(name, list(places), list(places.values()), group=name))
    errors = {name: error.value or 0.0 for name, error in common.column(shown, "mean_error", mode=MEAN).items()}
    settings = sorted({_setting(result) for result in shown.values()})
    caution = "" if len(settings) == 1 else " Compare only classifiers with the same corruptions and severities."
    reading = f"Mean error over {listed(settings)}: {common.ranking(errors, largest=False)}.{caution}"
    x_label = "severity (0: clean images)"
    return Figure("Accuracy under corruption", reading, x_label, "accuracy", tuple(series), y_range=(0.0, 1.0))


def _setting(result: CheckResult) -> str:
    """What was common.measured, in words."""
    details = result.details
    title = _TITLES[details["parameters"]]
    source = f"of {title}" if details["benchmark"] else f"with {title}'s parameters"
    severities = listed([str(severity) for severity in details["severities"]])
    return f"{len(details['corruptions'])} of {len(CORRUPTIONS)} corruptions {source} at severities {severities}"


def _summary(shown: Results) -> Table:
    reading = "Each image counts with all its corrupted versions, and intervals are over images."
    if common.column(shown, "mce", mode=MEAN):
        reading += " An mCE of 1 is as many errors as the baseline makes."
    unmeasured = {c: why for result in shown.values() for c, why in result.details["skipped"].items()}
    for name, why in unmeasured.items():
        reading += f" Not measured: {corruption_title(name)}. {why}"
    return common.table("Error under corruption", reading, shown, _SUMMARY)


def _by_severity(name: str, result: CheckResult) -> Table:
    """One classifier: accuracy under each corruption at each severity."""
    severities, found = result.details["severities"], result.metrics
    rows: list[common.Row] = []
    for corruption in result.details["corruptions"]:
        at = {"mode": MEAN, "corruption": corruption}
        row = [found.one("accuracy", severity=severity, **at) for severity in severities]
        added = found.get("added_error", **at)
        rows.append((corruption_title(corruption), *row, found.one("mean_error", **at), *([added] if added else [])))
    errors = _errors(result)
    least, most = common.extreme(errors, largest=False).names, common.extreme(errors).names
    reading = f"{name} has an error of {percent(errors[most[0]].value)} under each of {len(errors)} corruptions."
    if least != most:
        reading = (
            f"The error of {name} is smallest under {listed(least)} ({percent(errors[least[0]].value)}) and largest "
            f"under {listed(most)} ({percent(errors[most[0]].value)})."
        )
    titles = ["corruption", *(f"accuracy at severity {severity}" for severity in severities), "mean error"]
    titles += ["added to the clean error"] * (len(rows[0]) - len(titles))
    return Table("By corruption", reading, tuple(titles), tuple(rows))


def _losses(shown: Results) -> Figure:
    """The mean loss over corruptions, against severity."""
    series, worst = [], {}
    for name, result in shown.items():
        severities = result.details["severities"]
        found = [result.metrics.one("nll", mode=MEAN, severity=severity) for severity in severities]
        series.append(common.curve(name, [float(severity) for severity in severities], found, group=name))
        worst[name] = f"{number(found[-1].value or 0.0)} nats at severity {severities[-1]} for {name}"
    reading = f"−log of the probability of the label, mean over corruptions: {listed(list(worst.values()))}."
    return Figure("Negative log-likelihood under corruption", reading, "severity", "NLL, nats", tuple(series))


def _calibration(name: str, result: CheckResult) -> Table:
    """One classifier: calibration error under each corruption at each severity."""
    severities, found = result.details["severities"], result.metrics
    corruptions = result.details["corruptions"]
    rows: list[common.Row] = [
        (corruption_title(c), *(found.one("ece", mode=MEAN, corruption=c, severity=s) for s in severities))
        for c in corruptions
    ]
    last = {c: found.one("ece", mode=MEAN, corruption=c, severity=severities[-1]).value or 0.0 for c in corruptions}
    worst = max(last, key=lambda c: last[c])
    reading = (
        f"Expected calibration error of {name}, over 20 bins; at severity {severities[-1]} it is largest under "
        f"{corruption_title(worst)}, {percent(last[worst])}."
    )
    titles = ("corruption", *(f"ECE at severity {severity}" for severity in severities))
    return Table("Calibration by corruption", reading, titles, tuple(rows))


def _errors(result: CheckResult) -> dict[str, Metric]:
    """Mean error in mean mode, by corruption."""
    corruptions = result.details["corruptions"]
    return {corruption_title(c): result.metrics.one("mean_error", mode=MEAN, corruption=c) for c in corruptions}


def _by_classifier(shown: Results) -> Table:
    """Several classifiers: the mean error under each corruption."""
    errors = {name: _errors(result) for name, result in shown.items()}
    names = [corruption_title(corruption) for corruption in CORRUPTIONS]
    found = {c: [own.get(c) for own in errors.values()] for c in names if any(c in own for own in errors.values())}
    values = {c: [metric.value or 0.0 for metric in row if metric] for c, row in found.items()}
    spread = {c: points(max(row) - min(row)) for c, row in values.items()}
    most = points(max(max(row) - min(row) for row in values.values()))
    reading = f"The largest difference is under {listed([c for c in spread if spread[c] == most])}: {most}."
    if most == points(0.0):
        reading = "It is the same under each corruption."
    rows = tuple((c, *row) for c, row in found.items())
    return Table("By corruption", f"Mean error over severities. {reading}", ("corruption", *errors), rows)


def _gallery(shown: Results) -> list[Gallery]:
    """The first image under each corruption, once."""
    for result in shown.values():
        if "gallery" in result.arrays:
            pictures = tuple(
                map(common.picture, result.arrays["gallery"], map(corruption_title, result.details["corruptions"]))
            )
            at = f"severity {result.details['severities'][-1]}"
            return [Gallery("The corruptions", f"The first image at {at}.", ((at, pictures),))]
    return []
