"""How the page shows the robustness check: curves, what each attack achieved, and adversarial images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.checks.views import (
    MEAN,
    column,
    extreme,
    headlines,
    in_mode,
    interval,
    listed,
    measured,
    overlap,
    percent,
)
from isthmus.core.types import CheckResult, Figure, Gallery, Headline, Metric, Picture, Section, Series, Table

_PICTURES = 8  # examples in all, but at least two of each classifier
NO_BREAK = "\u00a0"
_READINGS = ("one_evaluation", "confident")
_NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}


def section(results: Mapping[str, CheckResult]) -> Section:
    """Blocks and columns from stored results; results of other norms get figures of their own."""
    shown = measured(results)
    blocks: list[Figure | Table | Gallery] = [_curves(norm, found) for norm, found in _by_norm(shown).items()]
    if shown:
        blocks += [_by_attack(shown), *_readings(shown), *_gallery(shown)]
    question = "How much accuracy is left when images may be perturbed?"
    return Section("Robustness", question, tuple(blocks), _columns(shown), _headlines(shown))


def _by_norm(shown: Mapping[str, CheckResult]) -> dict[str, dict[str, CheckResult]]:
    norms: dict[str, dict[str, CheckResult]] = {}
    for name, result in shown.items():
        norms.setdefault(result.details["norm"], {})[name] = result
    return norms


def _columns(shown: Mapping[str, CheckResult]) -> dict[str, dict[str, Metric]]:
    """Robust accuracy at each audit's ε, in each mode; an audit at another ε makes another column."""
    columns: dict[str, dict[str, Metric]] = {}
    for metric, suffix in (("robust_accuracy", ""), ("stochastic_robust_accuracy", ", stochastic")):
        for name, found in column(shown, metric).items():
            title = f"robust accuracy at {_threat(shown[name])}{suffix}"
            columns.setdefault(title, {})[name] = found
    return columns


def _headlines(shown: Mapping[str, CheckResult]) -> dict[str, Headline]:
    """Robust accuracy at each audit's ε, in the mode that its status is of."""
    found: dict[str, Headline] = {}
    for name, result in shown.items():
        label = f"robust accuracy at {_threat(result).replace(' ', NO_BREAK)}"
        found |= headlines({name: result}, "robust_accuracy", label)
    return found


def spoken(threat: str) -> str:
    """A threat as a reader wants it: "linf:0.1" as "ℓ∞ 0.1"."""
    norm, _, eps = threat.partition(":")
    return f"{_NORMS.get(norm, norm)} {eps}"


def _threat(result: CheckResult) -> str:
    return spoken(result.details["threat"])


def _curves(norm: str, shown: Mapping[str, CheckResult]) -> Figure:
    series = []
    for name, result in shown.items():
        modes = result.details["modes"]
        for mode, found in modes.items():
            points = [Metric.model_validate(entry) for entry in found["worst"]]
            series.append(
                Series(
                    f"{name} ({mode})" if len(modes) > 1 else name,
                    x=tuple(result.details["eps"]),
                    y=tuple(point.value or 0.0 for point in points),
                    low=tuple(point.interval.low for point in points if point.interval),
                    high=tuple(point.interval.high for point in points if point.interval),
                    style="line" if mode == MEAN else "dashed",
                    group=name,
                )
            )
    return Figure(
        "Robust accuracy against ε",
        _reading(shown),
        f"{_NORMS.get(norm, norm)} perturbation ε, images in [0, 1]",
        "accuracy against the worst of the attacks",
        tuple(series),
        y_range=(0.0, 1.0),
    )


def _reading(shown: Mapping[str, CheckResult]) -> str:
    """Who keeps how much at the largest ε, and where the stochastic mode differs beyond the intervals."""
    threats: dict[str, dict[str, CheckResult]] = {}
    for name, result in shown.items():
        threats.setdefault(_threat(result), {})[name] = result
    sentences = []
    if len(threats) > 1:
        largest = listed([f"{listed(list(group))} up to {threat}" for threat, group in threats.items()])
        sentences.append(
            f"They were attacked at different ε ({largest}), so only those attacked at the same one are ranked here"
        )
    for threat, group in threats.items():
        sentences += _ranked(threat, group)
    sampled = {
        name: result.metrics["stochastic_robust_accuracy"] for name, result in shown.items() if _modes_differ(result)
    }
    if sampled:
        words = [f"{name} ({percent(found.value)})" for name, found in sampled.items()]
        sentences.append(f"The stochastic mode differs beyond the intervals for {listed(words)}")
    signs = [name for name, result in shown.items() if _telltales(result)]
    if signs:
        sentences.append(f"Signs that the attacks were weak, so that the curve flatters: {listed(signs)}")
    return ". ".join(sentences) + "."


def _ranked(threat: str, shown: Mapping[str, CheckResult]) -> list[str]:
    """Who keeps the most and who the least, among classifiers that were attacked at one ε."""
    left = column(shown, "robust_accuracy")
    most, least = extreme(left), extreme(left, largest=False)
    best, worst = most.names[0], least.names[0]
    sentence = (
        f"At {threat}, {best} keeps {percent(left[best].value)}{interval(left[best])} of "
        f"{percent(_clean(shown[best]))} clean accuracy"
    )
    if len(left) == 1:
        return [sentence]
    if best == worst:
        return [f"{sentence}, and so does every other"]
    sentence += f", the most of {len(left)}{_with(most.names[1:])}, and {worst} {percent(left[worst].value)}, the least"
    return [f"{sentence}{_with(least.names[1:])}{most.caveat}"]


def _extremes(values: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """All names with the largest value, and all with the smallest."""
    high, low = max(values.values()), min(values.values())
    return [name for name in values if values[name] == high], [name for name in values if values[name] == low]


def _with(others: list[str]) -> str:
    return f" together with {listed(others)}" if others else ""


def _clean(result: CheckResult) -> float | None:
    return Metric.model_validate(result.details["modes"][MEAN]["worst"][0]).value


def _modes_differ(result: CheckResult) -> bool:
    other = result.metrics.get("stochastic_robust_accuracy")
    return other is not None and not overlap(result.metrics["robust_accuracy"], other)


def _telltales(result: CheckResult) -> list[str]:
    return [sign for found in result.details["modes"].values() for sign in found["telltales"]]


def _by_attack(shown: Mapping[str, CheckResult]) -> Table:
    attacks = list(dict.fromkeys(label for result in shown.values() for label in result.details["attacks"]))
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for name, result in shown.items():
        for mode, found in result.details["modes"].items():
            label = name if mode == MEAN else f"{name} ({mode})"
            alone = [found["alone"].get(attack) for attack in attacks]
            left = [None if curve is None else Metric.model_validate(curve[-1]) for curve in alone]
            clean = Metric.model_validate(found["worst"][0])
            passes = sum(sum(counts) for counts in found["passes"].values()) / clean.n
            worst = result.metrics[in_mode("robust_accuracy", mode)]
            rows.append((label, _threat(result), clean, *left, worst, round(passes)))
    by_attack = [f"{attack} alone" for attack in attacks]
    columns = ("classifier", "against", "clean", *by_attack, "all attacks", "passes per image")
    reading = _by_attack_reading(shown)
    return Table("Accuracy by attack, at the largest ε", reading, columns, tuple(rows))


def _readings(shown: Mapping[str, CheckResult]) -> list[Table]:
    """The three numbers of answers that are random, at the largest ε; none where no answers are."""
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for name, result in shown.items():
        for mode, found in result.details["modes"].items():
            if found.get("readings"):
                label = name if mode == MEAN else f"{name} ({mode})"
                once, sure = (Metric.model_validate(found["readings"][kind][-1]) for kind in _READINGS)
                rows.append((label, _threat(result), once, result.metrics[in_mode("robust_accuracy", mode)], sure))
    if not rows:
        return []
    reading = (
        "The same adversarial examples, judged in three ways on draws that no attack has seen. One evaluation is the "
        "papers' rule, with the samples of the code that the model averages itself. The average prediction over many "
        "draws is what all other figures report. With confidence, an image counts as broken only where the average is "
        "wrong at a level of 99%."
    )
    columns = ("classifier", "against", "one evaluation", "average over many draws", "99% confidence")
    return [Table("Robust accuracy of random answers, at the largest ε", reading, columns, tuple(rows))]


def _by_attack_reading(shown: Mapping[str, CheckResult]) -> str:
    strongest = Counter(_strongest(result) for result in shown.values())
    parts = []
    for attacks, count in strongest.items():
        alike = f"{listed(attacks)} (which leave equally many)" if len(attacks) > 1 else attacks[0]
        parts.append(f"{alike} for {count} of {len(shown)}")
    return f"By itself, least is left standing by {listed(parts)}; an image stands only where all fail."


def _strongest(result: CheckResult) -> tuple[str, ...]:
    """The attack that by itself leaves least standing in mean mode, or all of them where several do."""
    alone = result.details["modes"][MEAN]["alone"]
    return tuple(_extremes({label: curve[-1]["value"] for label, curve in alone.items()})[1])


def _gallery(shown: Mapping[str, CheckResult]) -> list[Gallery]:
    each = max(2, _PICTURES // len(shown))
    rows = tuple((name, _row(result, each)) for name, result in shown.items() if result.details["gallery"])
    if not rows:
        return []
    smallest = {
        name: min(fact["eps"] for fact in result.details["gallery"][:each])
        for name, result in shown.items()
        if result.details["gallery"]
    }
    reading = "The first images that each classifier gets right and loses under attack, at the smallest ε of its grid "
    reading += "that suffices"
    if len(_by_norm(shown)) == 1:
        first = _extremes(smallest)[1]
        reading += f"; {listed(first)} {'each lose' if len(first) > 1 else 'loses'} one of them at ε = "
        reading += f"{smallest[first[0]]:.4g}"
    return [Gallery("Adversarial images", f"{reading}.", rows)]


def _row(result: CheckResult, count: int) -> tuple[Picture, ...]:
    pictures: list[Picture] = []
    triples = zip(
        result.details["gallery"],
        result.arrays["gallery_original"],
        result.arrays["gallery_adversarial"],
        strict=True,
    )
    for fact, original, adversarial in list(triples)[:count]:
        difference, times = _difference(original, adversarial)
        pictures += [
            Picture(_drawable(original), f"image {fact['index']}, class {fact['label']}"),
            Picture(_drawable(adversarial), f"taken for {fact['predicted']} at ε\u00a0=\u00a0{fact['eps']:.3g}"),
            Picture(_drawable(difference), f"difference × {times:.2g}"),
        ]
    return tuple(pictures)


def _difference(original: NDArray[Any], adversarial: NDArray[Any]) -> tuple[NDArray[np.uint8], float]:
    """The perturbation around mid-grey, enlarged until its largest value is white or black."""
    change = adversarial.astype(np.float64) - original.astype(np.float64)
    times = 127.0 / max(float(np.abs(change).max()), 1.0)
    return np.rint(128 + times * change).astype(np.uint8), times


def _drawable(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images of 1 or 3 channels as they are, of any other number by their first one."""
    return image if image.shape[-1] in (1, 3) else image[..., :1]
