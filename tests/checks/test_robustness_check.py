import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks.threats import L2, Linf
from isthmus.checks import Diagnosis, Robustness
from isthmus.checks.attack_curves import warning_signs
from isthmus.checks.context import Context
from isthmus.checks.security_curve import Curve
from isthmus.core import randomness, results
from isthmus.core.config import component
from isthmus.core.display import Comparison
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Metrics, Status
from isthmus.metrics import accuracy
from isthmus.report.sections import robustness as page
from tests.checks.metric_helpers import plain

QUICK = ({"name": "fgsm"}, {"name": "pgd", "steps": 8})


class Linear(nn.Module):
    """Two classes; its accuracy under attack has a closed form."""

    def __init__(self, weight, bias=0.0):
        super().__init__()
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float32))
        self.bias = bias

    def forward(self, images):
        score = (images - 0.5).flatten(1) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)


class Noisy(nn.Module):
    """The same with noise from keys, averaged over draws: a stand-in for a stochastic mode."""

    takes_keys = True

    def __init__(self, model, scale=0.05):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, images, keys=None):
        noise = randomness.normal(keys, (4, 2)).to(images.device) * self.scale
        return (self.model(images).unsqueeze(1) + noise).log_softmax(-1).logsumexp(1)


class Staircase(nn.Module):
    """Rounds its input: no gradient anywhere, and no robustness either."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        rounded = (images * 50).round() / 50
        return self.model(rounded + 0.0 * images)


def linear_context(model=None, threat=None, n=120, **options):
    """Images in the middle of the box, so that it does not bind; labels by the model, one in ten flipped."""
    torch.manual_seed(0)
    weight = torch.linspace(-1, 1, 12)
    images = 0.5 + 0.7 * (torch.rand(n, 3, 2, 2) - 0.5)
    labels = Linear(weight)(images).argmax(1)
    labels = torch.where(torch.arange(n) % 10 == 0, 1 - labels, labels)
    options = {"model": model or Linear(weight), "threat": threat or Linf(0.06), "num_classes": 2} | options
    return Context(images=images, labels=labels, **options)


def run(ctx, **options):
    config = component("checks", {"name": "robustness", "attacks": QUICK, "levels": 3} | options)
    return config.run(ctx)


def worst(result, mode="mean", metric="robust_accuracy"):
    """A metric at the audit's ε."""
    at = {"norm": result.details["norm"], "eps": result.details["eps"][-1]}
    return result.metrics.one(metric, mode=mode, **at)


def closed_form(ctx, dual):
    """Whether each example holds at the ε of each level: margin > ε·dual norm."""
    score = (ctx.images - 0.5).flatten(1) @ ctx.model.weight
    margin = torch.where(ctx.labels == 1, score, -score)
    levels = torch.tensor([0.0, 1, 2, 3]) * ctx.threat.eps / 3
    return (margin > levels[:, None] * dual(ctx.model.weight)).numpy()


@pytest.mark.parametrize(
    ("threat", "dual"),
    [(Linf(0.06), lambda w: w.abs().sum()), (L2(0.15), lambda w: w.norm())],
    ids=["linf", "l2"],
)
@pytest.mark.parametrize(
    "attacks", [pytest.param(QUICK, id="attacks"), pytest.param(None, id="suite", marks=pytest.mark.slow)]
)
def test_a_linear_classifier_has_its_closed_form(threat, dual, attacks):
    ctx = linear_context(threat=threat)
    result = run(ctx, attacks=attacks)
    expected = closed_form(ctx, dual)
    np.testing.assert_array_equal(result.arrays["robust"], expected)
    assert 0.05 < expected[-1].mean() < expected[0].mean() == pytest.approx(0.9)
    assert plain(worst(result)) == accuracy(expected[-1])
    smaller = result.metrics.one("robust_accuracy", mode="mean", norm=threat.name, eps=threat.eps / 3)
    assert plain(smaller) == accuracy(expected[1])
    alone = result.metrics.get("robust_accuracy", mode="mean", norm=threat.name, eps=threat.eps, attack="pgd")
    assert alone is None if attacks is None else alone.value >= worst(result).value
    smallest = result.arrays["smallest_eps"]
    np.testing.assert_array_equal(smallest == 0, ~expected[0])
    np.testing.assert_array_equal(np.isinf(smallest), expected[-1])
    assert result.status is Status.MEASURED
    assert "not decided by this check" in result.reason


def test_confidence_that_rounds_the_cross_entropy_to_zero_is_no_robustness():
    ctx = linear_context(n=60)
    sure = linear_context(Linear(2000 * torch.linspace(-1, 1, 12)), n=60)
    expected = closed_form(ctx, lambda w: w.abs().sum())
    result = Robustness(levels=3).run(sure)
    np.testing.assert_array_equal(result.arrays["robust"], expected)
    fooled = run(sure)  # with the cross-entropy, as in the papers
    assert worst(fooled).value > 0.5 > worst(result).value


def test_the_gallery_holds_the_first_images_whatever_became_of_them():
    ctx = linear_context()
    result = run(ctx)
    facts, smallest = result.details["gallery"], result.arrays["smallest_eps"]
    original, adversarial = result.arrays["gallery_original"], result.arrays["gallery_adversarial"]
    assert original.dtype == adversarial.dtype == np.uint8
    assert original.shape == adversarial.shape == (24, 2, 2, 3)
    assert [fact["index"] for fact in facts] == list(range(24))
    for i, (fact, before, after) in enumerate(zip(facts, original, adversarial, strict=True)):
        assert fact["label"] == ctx.labels[i]
        assert (fact["clean_predicted"] == fact["label"]) == (smallest[i] > 0)
        change = np.abs(after.astype(float) - before.astype(float)).max() / 255
        if 0 < smallest[i] < np.inf:
            assert fact["predicted"] != fact["label"]
            assert fact["eps"] == smallest[i] <= 0.06
            assert change <= fact["size"] + 1 / 255
            assert fact["size"] <= fact["eps"] + 1e-6
            level = 1 + result.details["eps"].index(fact["eps"])
            assert fact["attack"] == ("pgd" if result.arrays["robust_fgsm"][level, i] else "fgsm")
        else:
            assert change == 0
            assert {fact[name] for name in ("predicted", "confidence", "eps", "size", "attack")} == {None}
    outcomes = {"broken" if 0 < eps < np.inf else str(eps) for eps in smallest[:24]}
    assert outcomes == {"broken", "0.0", "inf"}


def test_the_gallery_predicts_in_the_mode_that_is_attacked_and_the_page_names_it():
    model = Linear(torch.linspace(-1, 1, 12))
    context = linear_context(Linear(torch.linspace(1, -1, 12)), stochastic=Noisy(model), n=30, seed=0)
    result = run(context, modes=("stochastic",), levels=1)
    original = torch.from_numpy(result.arrays["gallery_original"]).permute(0, 3, 1, 2) / 255
    for fact, predicted in zip(result.details["gallery"], model(original).argmax(1).tolist(), strict=True):
        assert fact["clean_predicted"] == predicted, "the mean mode predicts the other class"
        assert fact["predicted"] in (None, 1 - fact["label"])
    assert any(fact["predicted"] is not None for fact in result.details["gallery"])
    (viewer,) = [block for block in page.section({"ceb": result}).blocks if isinstance(block, Comparison)]
    assert viewer.columns == ("ceb (stochastic)",)


def test_the_viewer_shows_broken_robust_and_misclassified_images():
    ctx = linear_context()
    other = linear_context(Linear(torch.linspace(-1, 1, 12), bias=0.3))
    section = page.section({"linear": run(ctx), "shifted": run(other)})
    shown = section.blocks[-1]
    assert shown.columns == ("linear", "shifted")
    assert len(shown.rows) == 24
    assert "not stored" not in {cell for _, cells in shown.rows for cell in cells if isinstance(cell, str)}
    kinds = [tuple(isinstance(cell, str) for cell in cells) for _, cells in shown.rows]
    differ = [len(set(kind)) > 1 for kind in kinds]
    assert differ == sorted(differ, reverse=True), "images on which classifiers differ come first"
    assert any(differ)
    cells = [cell for _, cells in shown.rows for cell in cells]
    sentences = " ".join(cell for cell in cells if isinstance(cell, str))
    assert re.search(r"[01]\xa0\(\d+\.\d%\): no adversarial example found", sentences)
    assert re.search(r"[01]\xa0\(\d+\.\d%\) without attack: misclassified", sentences)
    adversarial, difference = next(cell for cell in cells if not isinstance(cell, str))
    assert re.match(
        r"([01])\xa0\(\d+\.\d%\) → (?!\1)[01]\xa0\(\d+\.\d%\); (FGSM|PGD), ℓ∞\xa00\.0\d+$", adversarial.caption
    )
    assert difference.caption == "difference"
    assert re.match(r"image \d+, class [01]$", shown.rows[0][0].caption)


def test_large_images_get_fewer_rows():
    assert page._most_rows([example(28)], 5) == 24
    assert page._most_rows([example(224)], 5) == 10
    assert page._most_rows([example(1024)], 5) == 6


def example(side):
    image = np.zeros((side, side, 3), np.uint8)
    return page._Example({}, image, image)


def test_batch_size_changes_nothing():
    weight = torch.linspace(-1, 1, 12)
    found = [
        run(linear_context(stochastic=Noisy(Linear(weight)), batch_size=size, seed=0, n=20), levels=2)
        for size in (20, 9)
    ]
    assert found[0].model_dump() == found[1].model_dump()
    for name, values in found[0].arrays.items():
        np.testing.assert_array_equal(values, found[1].arrays[name], err_msg=name)


def test_modes_are_both_attacked_and_shown_apart():
    weight = torch.linspace(-1, 1, 12)
    result = run(linear_context(stochastic=Noisy(Linear(weight)), n=60))
    assert {metric.coords["mode"] for metric in result.metrics} == {"mean", "stochastic"}
    assert "stochastic_robust_pgd" in result.arrays
    section = page.section({"ceb": result})
    mean, stochastic = section.blocks[0].series
    assert (mean.name, mean.style, stochastic.name, stochastic.style) == (
        "ceb (mean)",
        "line",
        "ceb (stochastic)",
        "dashed",
    )
    assert mean.group == stochastic.group == "ceb"
    assert list(section.columns) == ["robust accuracy at ℓ∞ 0.06", "robust accuracy at ℓ∞ 0.06, stochastic"]
    assert [row[0] for row in section.blocks[1].rows] == ["ceb", "ceb (stochastic)"]
    names = ("robust_accuracy_one_evaluation", "robust_accuracy", "robust_accuracy_confident")
    three = [worst(result, "stochastic", name) for name in names]
    assert section.blocks[2].rows == (("ceb (stochastic)", "ℓ∞ 0.06", *three),)
    assert [metric.n for metric in three] == [60] * 3
    assert three[1].value <= three[2].value
    assert not result.metrics.select("robust_accuracy_confident", mode="mean")
    for name in ("one_evaluation", "confident"):
        robust = result.arrays[f"stochastic_robust_{name}"]
        assert robust.shape == result.arrays["stochastic_robust"].shape
        assert robust[-1].mean() == worst(result, "stochastic", f"robust_accuracy_{name}").value


def test_an_attack_weaker_than_one_step_raises_a_warning():
    feeble = ({"name": "fgsm"}, {"name": "pgd", "steps": 1, "step_size": 1e-6})
    result = run(linear_context(), attacks=feeble)
    assert result.status is Status.WARN
    assert "one step (FGSM) breaks" in result.reason
    reading = page.section({"masked": result}).blocks[0].reading
    assert "Signs of weak attacks, so that the curve is too high: masked" in reading


def curve(alone, missed=0, invalid=0):
    alone = {label: np.asarray(rows) for label, rows in alone.items()}
    n = next(iter(alone.values())).shape[1]
    worst = np.logical_and.accumulate(np.logical_and.reduce(list(alone.values())), axis=0)
    return Curve(
        eps=(0.1, 0.2),
        correct=np.ones(n, dtype=bool),
        alone=alone,
        worst=worst,
        adversarial=np.zeros((n, 1, 1, 1), dtype=np.float32),
        invalid=invalid,
        passes={},
        missed=missed,
    )


def test_warning_signs_ignore_chance():
    n = np.arange(200)
    falling = [n % 2 == 0, n % 4 == 0]
    assert warning_signs(curve({"fgsm": falling, "pgd": falling})) == []
    rising = [n % 4 == 0, n % 2 == 0]
    assert warning_signs(curve({"pgd": rising})) == ["pgd breaks 25.0% fewer examples at ε = 0.2 than at 0.1"]
    jitter = [falling[0], falling[0] | (n < 2)]
    assert warning_signs(curve({"pgd": jitter})) == []
    one_step_jumps_over_what_is_near = curve({"fgsm": rising, "pgd": [n % 4 == 0] * 2})
    assert warning_signs(one_step_jumps_over_what_is_near) == []
    apart = curve({"fgsm": [n % 5 > 0] * 2, "pgd": [n % 5 < 3] * 2})
    assert warning_signs(apart) == ["all attacks together break 20.0% more examples than pgd, the strongest of them"]
    tied = curve({"fgsm": [n % 5 > 1] * 2, "pgd": [n % 5 < 3] * 2})
    assert warning_signs(tied) == [
        "all attacks together break 40.0% more examples than fgsm or pgd, the strongest of them"
    ]
    nearly = curve({"fgsm": [n > 2] * 2, "pgd": [n % 5 < 3] * 2})
    assert warning_signs(nearly) == []
    missed = warning_signs(curve({"pgd": falling}, missed=2))
    assert missed == ["they break two examples that the diagnosis does not, and its number is too high"]
    assert "not finite" in warning_signs(curve({"pgd": falling}, invalid=3))[0]


def test_a_stored_result_gives_the_same_section(tmp_path):
    result = run(linear_context(n=40))
    results.save_result(tmp_path, result)
    loaded = results.load_result(tmp_path, "robustness")
    before, after = page.section({"a": result}), page.section({"a": loaded})
    assert after.blocks[:2] == before.blocks[:2]
    assert after.columns == before.columns
    for (one, (cell,)), (other, (again,)) in zip(before.blocks[2].rows, after.blocks[2].rows, strict=True):
        assert isinstance(cell, str) == isinstance(again, str)
        assert not isinstance(cell, str) or cell == again
        pictures = [] if isinstance(cell, str) else zip(cell, again, strict=True)
        for a, b in [(one, other), *pictures]:
            assert a.caption == b.caption
            np.testing.assert_array_equal(a.image, b.image)


def test_the_section_compares_classifiers_and_keeps_norms_apart():
    weight = torch.linspace(-1, 1, 12)
    firm, weak = run(linear_context(n=40)), run(linear_context(Linear(-weight), n=40))
    other = run(linear_context(threat=L2(0.1), n=40))
    section = page.section({"firm": firm, "weak": weak, "round": other})
    first, second = section.blocks[:2]
    highest, lowest = (f"{100 * worst(r).value:.1f}% (95% interval" for r in (firm, weak))
    assert first.reading.startswith(f"firm has the highest robust accuracy at ℓ∞ 0.06, {highest}")
    assert f"weak has the lowest, {lowest}" in first.reading
    assert "overlap" not in first.reading
    assert [series.name for series in second.series] == ["round"]
    assert second.x_label.startswith("ℓ2")
    assert list(section.columns) == ["robust accuracy at ℓ∞ 0.06", "robust accuracy at ℓ2 0.1"]
    assert section.headlines["firm"].metric == worst(firm)
    assert section.headlines["firm"].label == section.headlines["weak"].label != section.headlines["round"].label
    assert all(row[-1] > 0 for row in section.blocks[2].rows)  # passes per image


def result_of(threat, robust, clean=40):
    """A stored result in which this many of 40 images are robust to each attack, at the one ε of the grid."""
    norm, _, eps = threat.partition(":")
    at = {"mode": "mean", "norm": norm, "eps": float(eps)}
    found = {attack: accuracy(np.arange(40) < count) for attack, count in robust.items()}
    details = {"threat": threat, "norm": norm, "eps": [float(eps)], "attacks": robust, "mode": "mean"}
    details["modes"] = {"mean": {"passes": {}, "warning_signs": [], "rules": []}}
    details["gallery"] = []
    return CheckResult(
        check="robustness",
        status=Status.MEASURED,
        reason="",
        metrics=Metrics(
            [
                accuracy(np.arange(40) < clean).named("accuracy", mode="mean"),
                accuracy(np.arange(40) < min(robust.values())).named("robust_accuracy", **at),
                *(metric.named("robust_accuracy", attack=attack, **at) for attack, metric in found.items()),
            ]
        ),
        details=details,
        arrays={name: np.zeros((0, 2, 2, 1), np.uint8) for name in ("gallery_original", "gallery_adversarial")},
    )


def test_only_classifiers_under_the_same_threat_are_ranked():
    small, large = result_of("linf:0.02", {"pgd": 38}), result_of("linf:0.2", {"pgd": 1})
    reading = page.section({"a": small, "b": large}).blocks[0].reading
    assert reading.startswith(
        "They were attacked at different ε (a up to ℓ∞ 0.02 and b up to ℓ∞ 0.2), so only equal ε are compared here. "
        "The robust accuracy at ℓ∞ 0.02 is 95.0%"
    )
    assert "The robust accuracy at ℓ∞ 0.2 is 2.5%" in reading
    three = page.section({"a": small, "b": large, "c": result_of("linf:0.02", {"pgd": 4})}).blocks[0].reading
    assert "a and c up to ℓ∞ 0.02 and b up to" in three
    assert "a has the highest robust accuracy at ℓ∞ 0.02" in three
    assert "c has the lowest, 10.0%" in three


def test_ties_are_named_and_nobody_wins_them():
    alike, apart = result_of("linf:0.1", {"fgsm": 9, "pgd": 9}), result_of("linf:0.1", {"fgsm": 9, "pgd": 2})
    table = page.section({"a": alike, "b": alike}).blocks[1]
    assert table.reading.startswith("The strongest attack by itself is FGSM and PGD for 2 of 2")
    reading = page.section({"a": alike, "b": apart}).blocks[1].reading
    assert "FGSM and PGD for 1 of 2 and PGD for 1 of 2" in reading


@pytest.fixture(scope="module")
def diagnosed_staircase():
    ctx = linear_context(Staircase(Linear(torch.linspace(-1, 1, 12))), n=60)
    return replace(ctx, results={"diagnosis": Diagnosis(passes=600, sample=20, ensemble="apgd:20").run(ctx)})


@pytest.mark.parametrize(
    "attacks", [pytest.param(QUICK, id="attacks"), pytest.param(None, id="suite", marks=pytest.mark.slow)]
)
def test_at_the_largest_eps_it_is_the_corrected_accuracy_of_the_diagnosis(diagnosed_staircase, attacks):
    """Also where the diagnosis alone breaks examples: behind rounding, gradients are zero."""
    ctx = diagnosed_staircase
    diagnosed = ctx.results["diagnosis"]
    still = None if attacks is None else ({"name": "pgd", "steps": 3, "random_start": False},)
    result = run(ctx, attacks=still)
    corrected = diagnosed.metrics.one("corrected_accuracy", mode="mean", norm="linf", eps=0.06)
    assert plain(worst(result)) == plain(corrected)
    assert (
        corrected.value
        < run(replace(ctx, results={}), attacks=QUICK[:1])
        .metrics.one("robust_accuracy", mode="mean", norm="linf", eps=0.06)
        .value
    )
    np.testing.assert_array_equal(result.arrays["robust"][-1], diagnosed.arrays["corrected_robust"])
    assert (np.diff(result.arrays["robust"].astype(int), axis=0) <= 0).all()
    spent = sum(result.details["modes"]["mean"]["passes"].get("suite", (0, 0)))
    if attacks is None:
        assert spent < sum(run(replace(ctx, results={}), attacks=None).details["modes"]["mean"]["passes"]["suite"])


def test_a_diagnosis_of_other_images_is_not_used():
    ctx = linear_context(n=40)
    part = Diagnosis(passes=60, sample=20, examples=20).run(ctx)
    with_it, without = (run(replace(ctx, results=known)) for known in ({"diagnosis": part}, {}))
    assert with_it.arrays["robust"].tolist() == without.arrays["robust"].tolist()
    assert with_it.details["diagnosed"] == []


def test_budgets_and_grids():
    ctx = linear_context(n=8)
    quick = Robustness().run(ctx)
    assert quick.details["eps"] == pytest.approx([0.015, 0.03, 0.045, 0.06])
    assert list(quick.details["modes"]["mean"]["passes"]) == ["suite"]
    assert quick.details["attacks"] == {}
    assert "at ℓ∞ 0.06 (95%" in quick.reason
    given = run(ctx, grid=(0.05, 0.01))
    assert given.details["eps"] == [0.01, 0.05, 0.06]
    with pytest.raises(ConfigError, match=r"beyond the audit's threat linf:0\.06"):
        run(ctx, grid=(0.1,))
    with pytest.raises(ConfigError, match="fgsm"):
        run(ctx, attacks=("fgms",))


def test_progress_only_moves_forward():
    seen = []
    run(linear_context(n=30, batch_size=8, progress=lambda done, total: seen.append(done / total)))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_classifier_that_nothing_breaks_has_no_viewer():
    ctx = linear_context(Linear(torch.zeros(12), bias=1.0), n=30)
    result = run(ctx)
    assert {fact["predicted"] for fact in result.details["gallery"]} == {None}
    assert len(page.section({"constant": result}).blocks) == 2


def test_nothing_measured_shows_nothing():
    failed = CheckResult(check="robustness", status=Status.ERROR, reason="no")
    assert page.section({"a": failed}).blocks == ()
