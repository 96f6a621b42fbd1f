"""Robust accuracy against ε, by attack, and adversarial examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus.core.display import Block, Comparison, Figure, Headline, Picture, Section, Table
from isthmus.core.format import NORMS, attack_title, interval, listed, percent, threat_title
from isthmus.core.types import CheckResult, Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, STOCHASTIC, Cells, Find, Results

_PIXELS, _FEWEST, _MOST = 6_000_000, 6, 24
"""Pixels of all pictures in the viewer, and the bounds of its number of rows."""


def section(results: Results) -> Section:
    """Blocks and columns from stored results; results of other norms get separate figures."""
    shown = common.with_metrics(results)
    blocks: list[Block] = []
    if shown:
        norms = _grouped(shown, lambda result: str(result.details["norm"]))
        blocks += [_curves(norm, found) for norm, found in norms.items()]
        blocks += [*_by_attack(shown), *_rules(shown), *_viewer(shown)]
    question = "How robust is it to adversarial perturbations?"
    compared = common.columns(shown, lambda result: f"robust accuracy at {_threat(result)}", _worst())
    return Section("Robustness", question, tuple(blocks), compared, _headlines(shown))


def _worst(metric: str = "robust_accuracy", **coords: Any) -> Find:
    """Robust accuracy at the largest ε."""
    return lambda result, mode: result.metrics.get(metric, mode=mode, **common.threat(result), **coords)


def _grouped(shown: Results, key: Callable[[CheckResult], str]) -> dict[str, dict[str, CheckResult]]:
    groups: dict[str, dict[str, CheckResult]] = {}
    for name, result in shown.items():
        groups.setdefault(key(result), {})[name] = result
    return groups


def _headlines(shown: Results) -> dict[str, Headline]:
    """Robust accuracy at each audit's ε, in the mode that its status is of."""
    found = {}
    for name, result in shown.items():
        at = _threat(result).replace(" ", "\u00a0")
        if worst := _worst()(result, common.status_mode(result)):
            found[name] = common.headline(worst, f"robust accuracy at {at}")
    return found


def _threat(result: CheckResult) -> str:
    return threat_title(result.details["threat"])


def _curves(norm: str, shown: Results) -> Figure:
    series = []
    for name, result in shown.items():
        own = common.modes(result)
        for mode in own:
            grid = result.details["eps"]
            found = [result.metrics.one("accuracy", mode=mode)]
            found += [result.metrics.one("robust_accuracy", mode=mode, norm=norm, eps=eps) for eps in grid]
            title = f"{name} ({mode})" if len(own) > 1 else name
            style = "line" if mode == MEAN else "dashed"
            series.append(common.curve(title, [0.0, *grid], found, style=style, group=name))
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
    threats = _grouped(shown, _threat)
    sentences = []
    if len(threats) > 1:
        largest = listed([f"{listed(list(group))} up to {at}" for at, group in threats.items()])
        sentences.append(f"They were attacked at different ε ({largest}), so only equal ε are compared here")
    for at, group in threats.items():
        found = {n: worst for n, result in group.items() if (worst := _worst()(result, common.status_mode(result)))}
        what = f"robust accuracy at {at}"
        sentences.append(common.extremes(found, what, ("highest", "lowest"), _text))
    sampled = [
        f"{name} ({percent(other.value)})"
        for name, result in shown.items()
        for mean, other in [(_worst()(result, MEAN), _worst()(result, STOCHASTIC))]
        if mean and other and not common.overlap(mean, other)
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


def _text(metric: Metric) -> str:
    return f"{percent(metric.value)}{interval(metric)}"


def _lowest(values: Mapping[str, float]) -> list[str]:
    """All names with the smallest value."""
    return [name for name in values if values[name] == min(values.values())]


def _by_attack(results: Results) -> list[Table]:
    """Attacks that ran one by one; no table if a suite ran instead."""
    shown = {name: result for name, result in results.items() if result.details["attacks"]}
    if not shown:
        return []
    attacks = list(dict.fromkeys(attack for result in shown.values() for attack in result.details["attacks"]))
    cells: Cells = {
        "threat": lambda result, _: _threat(result),
        "clean": common.measured("accuracy"),
        **{f"{attack_title(attack)} alone": _worst(attack=attack) for attack in attacks},
        "all attacks": _worst(),
        "passes per image": _passes,
    }
    strongest = Counter(tuple(map(attack_title, _strongest(result))) for result in shown.values())
    parts = [
        listed(attacks) + (f" for {n} of {len(shown)}" if len(shown) > 1 else "") for attacks, n in strongest.items()
    ]
    reading = f"The strongest attack by itself is {listed(parts)}; an image is robust only if all attacks fail."
    return [common.table("Accuracy by attack, at the largest ε", reading, shown, cells)]


def _passes(result: CheckResult, mode: str) -> int:
    passes = result.details["modes"][mode]["passes"]
    return round(sum(sum(counts) for counts in passes.values()) / result.metrics.one("accuracy", mode=mode).n)


def _strongest(result: CheckResult) -> tuple[str, ...]:
    """The attack that by itself leaves the lowest accuracy, or all of them if several do."""
    mode = common.status_mode(result)
    alone = {attack: _worst(attack=attack)(result, mode) for attack in result.details["attacks"]}
    return tuple(_lowest({attack: metric.value or 0.0 for attack, metric in alone.items() if metric}))


def _rules(shown: Results) -> list[Table]:
    """The three numbers for random predictions, at the largest ε; no table if there are none."""
    once, sure = _worst("robust_accuracy_one_evaluation"), _worst("robust_accuracy_confident")
    rows = [
        (common.label(name, mode), _threat(result), once(result, mode), _worst()(result, mode), sure(result, mode))
        for name, result in shown.items()
        for mode, found in result.details["modes"].items()
        if found["rules"]
    ]
    reading = (
        "The same adversarial examples, evaluated in three ways on draws that no attack has used. One evaluation is "
        "the papers' rule, with the number of code samples that the model averages itself. The average prediction over "
        "many draws is reported everywhere else. With confidence, an image counts as broken only if the average is "
        "wrong at a level of 99%."
    )
    titles = ("classifier", "threat", "one evaluation", "average over many draws", "99% confidence")
    title = "Robust accuracy of random predictions, at the largest ε"
    return [Table(title, reading, titles, tuple(rows))] if rows else []


def _viewer(shown: Results) -> list[Comparison]:
    """The stored images, a row for each; those that most classifiers have."""
    named = {common.label(name, common.status_mode(result)): result for name, result in shown.items()}
    stored = {name: _stored(result) for name, result in named.items()}
    have = Counter(key for own in stored.values() for key in own)
    found = [example for own in stored.values() for example in own.values()]
    if not any(example.broken for example in found):
        return []
    largest = max(1 / 255, *(float(np.abs(_change(example)).max()) for example in found))
    rows = []
    for key in sorted(sorted(have, key=lambda key: (-have[key], key))[: _most_rows(found, len(shown))]):
        first = next(own[key] for own in stored.values() if key in own)
        original = common.picture(first.original, f"image {key[0]}, class {first.fact['label']}")
        cells = tuple(
            _cell(own[key], largest, _norm(named[name])) if key in own else "not stored" for name, own in stored.items()
        )
        rows.append((original, cells))
    rows.sort(key=_interest)
    reading = (
        "The first audited images, the same for each classifier; those with different outcomes come first. Below an "
        "adversarial example: its difference from the original, the predictions before → after with their confidence, "
        "the attack, and the norm of the difference."
    )
    ends = (f"darker by {largest:.2g}", "unchanged", f"brighter by {largest:.2g}")
    return [Comparison("Adversarial examples", reading, tuple(stored), tuple(rows), ends)]


_Key = tuple[int, bytes]
_Row = tuple[Picture, tuple[tuple[Picture, Picture] | str, ...]]


class _Example(NamedTuple):
    """A stored image: its facts, and the original and the adversarial image as bytes h×w×c, equal if it is robust."""

    fact: Mapping[str, Any]
    original: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]

    @property
    def broken(self) -> bool:
        """Whether an adversarial example was found."""
        return self.fact["predicted"] is not None


def _stored(result: CheckResult) -> dict[_Key, _Example]:
    """A classifier's stored images by index and bytes."""
    images = (result.arrays[name] for name in ("gallery_original", "gallery_adversarial"))
    found = [_Example(fact, *pair) for fact, *pair in zip(result.details["gallery"], *images, strict=True)]
    return {(int(each.fact["index"]), each.original.tobytes()): each for each in found}


def _most_rows(found: Sequence[_Example], classifiers: int) -> int:
    """The rows that the page has room for: large images of many classifiers get fewer."""
    pixels = max(math.prod(example.original.shape[:2]) for example in found)
    return min(_MOST, max(_FEWEST, _PIXELS // (pixels * (1 + 2 * classifiers))))


def _interest(row: _Row) -> tuple[bool, bool]:
    """Sorts images on which classifiers differ first, then images for which all have an adversarial example."""
    broken = [not isinstance(cell, str) for cell in row[1]]
    return all(broken) or not any(broken), not any(broken)


def _cell(example: _Example, largest: float, norm: str) -> tuple[Picture, Picture] | str:
    """The adversarial image with its caption, and the difference; or why there is none."""
    fact = example.fact
    before = _prediction(fact["clean_predicted"], fact["clean_confidence"])
    if fact["clean_predicted"] != fact["label"]:
        return f"{before} without attack: misclassified"
    if not example.broken:
        return f"{before}: no adversarial example found"
    after = _prediction(fact["predicted"], fact["confidence"])
    attack = f"{attack_title(fact['attack'])}, " if fact["attack"] else ""
    caption = f"{before} → {after}; {attack}{norm}\u00a0{fact['size']:.3g}"
    difference = common.difference(_change(example), largest)
    return common.picture(example.adversarial, caption), common.picture(difference, "difference")


def _norm(result: CheckResult) -> str:
    return NORMS.get(str(result.details["norm"]), str(result.details["norm"]))


def _prediction(predicted: int, confidence: float) -> str:
    return f"{predicted}\u00a0({percent(confidence)})"


def _change(example: _Example) -> NDArray[np.float64]:
    """The perturbation h×w×c, in units of images in [0, 1]."""
    return (example.adversarial.astype(np.float64) - example.original) / 255
