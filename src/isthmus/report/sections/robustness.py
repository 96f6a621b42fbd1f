"""Robust accuracy against ε, by attack, and adversarial examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.display import Figure, Gallery, Headline, Picture, Section, Table
from isthmus.core.format import NORMS, interval, listed, percent, threat_title
from isthmus.core.types import CheckResult, Metric
from isthmus.report.sections.common import (
    MEAN,
    STOCHASTIC,
    Results,
    Row,
    curve,
    extreme,
    label,
    overlap,
    with_metrics,
)

_PICTURES = 8  # examples in all, but at least two of each classifier


def section(results: Results) -> Section:
    """Blocks and columns from stored results; results of other norms get separate figures."""
    shown = with_metrics(results)
    blocks: list[Figure | Table | Gallery] = [_curves(norm, found) for norm, found in _by_norm(shown).items()]
    if shown:
        blocks += [_by_attack(shown), *_rules(shown), *_gallery(shown)]
    question = "How robust is it to adversarial perturbations?"
    return Section("Robustness", question, tuple(blocks), _columns(shown), _headlines(shown))


def _worst(result: CheckResult, mode: str = MEAN, **coords: Any) -> Metric | None:
    """Robust accuracy at the largest ε."""
    norm, eps = result.details["norm"], result.details["eps"][-1]
    return result.metrics.get("robust_accuracy", mode=mode, norm=norm, eps=eps, **coords)


def _by_norm(shown: Results) -> dict[str, dict[str, CheckResult]]:
    norms: dict[str, dict[str, CheckResult]] = {}
    for name, result in shown.items():
        norms.setdefault(result.details["norm"], {})[name] = result
    return norms


def _columns(shown: Results) -> dict[str, dict[str, Metric]]:
    """Robust accuracy at each audit's ε, in each mode; an audit at another ε makes another column."""
    columns: dict[str, dict[str, Metric]] = {}
    for mode, suffix in ((MEAN, ""), (STOCHASTIC, ", stochastic")):
        for name, result in shown.items():
            if found := _worst(result, mode):
                columns.setdefault(f"robust accuracy at {_threat(result)}{suffix}", {})[name] = found
    return columns


def _headlines(shown: Results) -> dict[str, Headline]:
    """Robust accuracy at each audit's ε, in the mode that its status is of."""
    found: dict[str, Headline] = {}
    for name, result in shown.items():
        mode = result.details["mode"]
        at = _threat(result).replace(" ", "\u00a0")
        if worst := _worst(result, mode):
            found[name] = Headline(worst, f"robust accuracy at {at}", note="" if mode == MEAN else f"{mode} mode")
    return found


def _threat(result: CheckResult) -> str:
    return threat_title(result.details["threat"])


def _curves(norm: str, shown: Results) -> Figure:
    series = []
    for name, result in shown.items():
        modes = result.details["modes"]
        for mode in modes:
            grid = result.details["eps"]
            found = [result.metrics.one("accuracy", mode=mode)]
            found += [result.metrics.one("robust_accuracy", mode=mode, norm=norm, eps=eps) for eps in grid]
            title = f"{name} ({mode})" if len(modes) > 1 else name
            style = "line" if mode == MEAN else "dashed"
            series.append(curve(title, [0.0, *grid], found, style=style, group=name))
    return Figure(
        "Robust accuracy against ε",
        _reading(shown),
        f"{NORMS.get(norm, norm)} perturbation ε, images in [0, 1]",
        "accuracy under the worst of the attacks",
        tuple(series),
        y_range=(0.0, 1.0),
    )


def _reading(shown: Results) -> str:
    """The highest and lowest robust accuracy, and whether the stochastic mode differs beyond the intervals."""
    threats: dict[str, dict[str, CheckResult]] = {}
    for name, result in shown.items():
        threats.setdefault(_threat(result), {})[name] = result
    sentences = []
    if len(threats) > 1:
        largest = listed([f"{listed(list(group))} up to {threat}" for threat, group in threats.items()])
        sentences.append(f"They were attacked at different ε ({largest}), so only equal ε are compared here")
    for threat, group in threats.items():
        sentences.append(_ranked(threat, group))
    sampled = [
        f"{name} ({percent(other.value)})"
        for name, result in shown.items()
        if (mean := _worst(result)) and (other := _worst(result, STOCHASTIC)) and not overlap(mean, other)
    ]
    if sampled:
        sentences.append(f"The stochastic mode differs beyond the intervals for {listed(sampled)}")
    signs = [
        name
        for name, result in shown.items()
        if any(found["warning_signs"] for found in result.details["modes"].values())
    ]
    if signs:
        sentences.append(f"Signs of weak attacks, so that the curve is too high: {listed(signs)}")
    return ". ".join(sentences) + "."


def _ranked(threat: str, shown: Results) -> str:
    """The highest and the lowest robust accuracy among classifiers that were attacked at one ε."""
    found = {name: worst for name, result in shown.items() if (worst := _worst(result))}
    most, least = extreme(found), extreme(found, largest=False)
    best, lowest = most.names[0], least.names[0]
    clean = shown[best].metrics.one("accuracy", mode=MEAN)
    sentence = (
        f"At {threat}, {best} has a robust accuracy of {percent(found[best].value)}{interval(found[best])}, "
        f"{percent(clean.value)} on clean images"
    )
    if len(found) == 1:
        return sentence
    if best == lowest:
        return f"{sentence}; so has every other"
    return (
        f"{sentence}, the highest of {len(found)}{_with(most.names[1:])}; {lowest} has {percent(found[lowest].value)}, "
        f"the lowest{_with(least.names[1:])}{most.caveat}"
    )


def _with(others: list[str]) -> str:
    return f" together with {listed(others)}" if others else ""


def _lowest(values: Mapping[str, float]) -> list[str]:
    """All names with the smallest value."""
    return [name for name in values if values[name] == min(values.values())]


def _by_attack(shown: Results) -> Table:
    attacks = list(dict.fromkeys(attack for result in shown.values() for attack in result.details["attacks"]))
    rows: list[Row] = []
    for name, result in shown.items():
        for mode, found in result.details["modes"].items():
            clean = result.metrics.one("accuracy", mode=mode)
            passes = sum(sum(counts) for counts in found["passes"].values()) / clean.n
            alone = [_worst(result, mode, attack=attack) for attack in attacks]
            rows.append((label(name, mode), _threat(result), clean, *alone, _worst(result, mode), round(passes)))
    by_attack = [f"{attack} alone" for attack in attacks]
    columns = ("classifier", "threat", "clean", *by_attack, "all attacks", "passes per image")
    return Table("Accuracy by attack, at the largest ε", _by_attack_reading(shown), columns, tuple(rows))


def _by_attack_reading(shown: Results) -> str:
    strongest = Counter(_strongest(result) for result in shown.values())
    parts = [
        listed(attacks) + (f" for {n} of {len(shown)}" if len(shown) > 1 else "") for attacks, n in strongest.items()
    ]
    return f"The strongest attack by itself is {listed(parts)}; an image is robust only if all attacks fail."


def _strongest(result: CheckResult) -> tuple[str, ...]:
    """The attack that by itself leaves the lowest accuracy in mean mode, or all of them if several do."""
    alone = {attack: _worst(result, attack=attack) for attack in result.details["attacks"]}
    return tuple(_lowest({attack: metric.value or 0.0 for attack, metric in alone.items() if metric}))


def _rules(shown: Results) -> list[Table]:
    """The three numbers for random predictions, at the largest ε; no table if there are none."""
    rows: list[Row] = []
    for name, result in shown.items():
        at = {"norm": result.details["norm"], "eps": result.details["eps"][-1]}
        for mode, found in result.details["modes"].items():
            if found["rules"]:
                once = result.metrics.get("robust_accuracy_one_evaluation", mode=mode, **at)
                sure = result.metrics.get("robust_accuracy_confident", mode=mode, **at)
                rows.append((label(name, mode), _threat(result), once, _worst(result, mode), sure))
    if not rows:
        return []
    reading = (
        "The same adversarial examples, evaluated in three ways on draws that no attack has used. One evaluation is "
        "the papers' rule, with the number of code samples that the model averages itself. The average prediction over "
        "many draws is reported everywhere else. With confidence, an image counts as broken only if the average is "
        "wrong at a level of 99%."
    )
    columns = ("classifier", "threat", "one evaluation", "average over many draws", "99% confidence")
    return [Table("Robust accuracy of random predictions, at the largest ε", reading, columns, tuple(rows))]


def _gallery(shown: Results) -> list[Gallery]:
    each = max(2, _PICTURES // len(shown))
    rows = tuple((name, _row(result, each)) for name, result in shown.items() if result.details["gallery"])
    if not rows:
        return []
    smallest = {
        name: min(fact["eps"] for fact in result.details["gallery"][:each])
        for name, result in shown.items()
        if result.details["gallery"]
    }
    reading = (
        "The first images that each classifier gets right and loses under attack, at the smallest sufficient ε of "
    )
    reading += "its grid"
    if len(_by_norm(shown)) == 1:
        first = _lowest(smallest)
        reading += f"; {listed(first)} {'each lose' if len(first) > 1 else 'loses'} one of them at ε = "
        reading += f"{smallest[first[0]]:.4g}"
    return [Gallery("Adversarial examples", f"{reading}.", rows)]


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
            Picture(_drawable(adversarial), f"predicted {fact['predicted']} at ε\u00a0=\u00a0{fact['eps']:.3g}"),
            Picture(_drawable(difference), f"difference × {times:.2g}"),
        ]
    return tuple(pictures)


def _difference(original: NDArray[Any], adversarial: NDArray[Any]) -> tuple[NDArray[np.uint8], float]:
    """The perturbation around mid-grey, enlarged until its largest value is white or black."""
    change = adversarial.astype(np.float64) - original.astype(np.float64)
    times = 127.0 / max(float(np.abs(change).max()), 1.0)
    return np.rint(128 + times * change).astype(np.uint8), times


def _drawable(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images of 1 or 3 channels as they are, others by their first channel."""
    return image if image.shape[-1] in (1, 3) else image[..., :1]
