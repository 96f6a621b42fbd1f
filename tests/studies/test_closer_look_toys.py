"""Toy classifiers: their measurements against the closed forms of their own weights, and the claims about them."""

import math

import pytest
import torch

from isthmus.data.toys import Intervals, Rule
from isthmus.studies import catalogue
from isthmus.studies.closer_look import toy_models, toys
from isthmus.studies.evidence import Verdict
from isthmus.studies.study import StudyRecord

CONFIG = toys.ToyConfig(steps=150, batch_size=256, points=2000)


def silent(_done, _total):
    return None


@pytest.fixture(scope="module", params=["intervals", "gaussians"])
def problem(request):
    return getattr(toy_models, request.param)(CONFIG.points)


@pytest.mark.parametrize("beta", [None, 0.01])
def test_what_is_measured_is_what_the_weights_imply(problem, beta):
    found = toy_models.measure(problem, CONFIG, beta, 0, silent)
    for name, expected in found["expected"].items():
        measured = found["right"]["mean"][name] / CONFIG.points
        assert abs(measured - expected) <= 5 * math.sqrt(max(expected * (1 - expected), 1e-3) / CONFIG.points)
    assert set(found["right"]) == ({"mean"} if beta is None else {"mean", "stochastic"})
    assert found["right"]["mean"]["clean"] > 0.9 * CONFIG.points


def test_the_same_seed_gives_the_same_classifier(problem):
    one, same = (toy_models.measure(problem, CONFIG, 0.1, 3, silent) for _ in range(2))
    other = toy_models.measure(problem, CONFIG, 0.1, 4, silent)
    assert one == same
    assert one["rule"] != other["rule"]


def test_the_rule_of_a_linear_classifier_is_its_own():
    model = toy_models.train(Intervals(), CONFIG, 0.01, 0, silent)
    rule = toy_models.linear_rule(model, 2)
    points = Intervals().sample(500, torch.Generator().manual_seed(0)).features
    with torch.no_grad():
        logits = model(points).double()
    lead = points.double() @ torch.tensor(rule.weights, dtype=torch.float64) + rule.bias
    torch.testing.assert_close(lead, logits[:, 1] - logits[:, 0], atol=1e-4, rtol=1e-4)


def test_a_deterministic_classifier_starts_at_zero_and_a_bottleneck_at_its_encoder():
    for beta in (None, 0.01):
        model = toy_models._untrained(2, CONFIG, beta, 0)
        assert toy_models.linear_rule(model, 2) == Rule((0.0, 0.0), 0.0)
    assert model.encoder.project.weight.abs().sum() > 0


def test_a_larger_beta_costs_rate(problem):
    rates = [toy_models.measure(problem, CONFIG, beta, 0, silent)["rate"] for beta in (0.001, 0.3)]
    assert rates[0] > rates[1] > 0


# --- claims, on made-up numbers ---


def made(study, right, n=10_000, seeds=4):
    """A record whose cells hold these accuracies: (β, mode, set) -> share; every seed a little apart."""
    cells = {}
    for beta in dict.fromkeys(beta for beta, _, _ in right):
        for seed in range(seeds):
            counts = {}
            for (b, mode, points), share in right.items():
                if b == beta:
                    counts.setdefault(mode, {})[points] = round(n * share) + (seed if share < 0.999 else 0)
            cell = {"beta": beta, "seed": seed, "n": n, "objective": "determ" if beta is None else "vib", "rate": 1.0}
            expected = {name: count / n for name, count in counts["mean"].items()}
            cells[f"{beta}, {seed}"] = {**cell, "right": counts, "expected": expected}
    config = catalogue.find(study).SCALES["paper"].plain() | {"points": n}
    return StudyRecord(study=study, scale="paper", config=config, cells=cells, total=len(cells))


def verdicts(record):
    study = catalogue.find(record.study)
    assert study.section(record).blocks
    return [finding.verdict for finding in study.findings(record)]


def intervals(rare, clean=0.99):
    rows = {(None, "mean", points): 0.98 for points in ("clean", "rare", "shifted")}
    for mode in ("mean", "stochastic"):
        rows |= {(0.01, mode, points): rare for points in ("rare", "shifted")} | {(0.01, mode, "clean"): clean}
    return made("closer-look/figure-5", rows)


@pytest.mark.parametrize(
    ("rare", "expected"), [(0.9, Verdict.SEEN), (0.99, Verdict.NOT_SEEN), (0.98, Verdict.UNDECIDED)]
)
def test_leaning_on_the_second_feature(rare, expected):
    assert verdicts(intervals(rare)) == [expected, expected]


def test_a_collapsed_classifier_is_no_evidence():
    assert verdicts(intervals(0.5, clean=0.5)) == [Verdict.UNDECIDED] * 2


def gaussians(mean, stochastic, clean):
    rows = {(None, "mean", "clean"): 0.99, (None, "mean", "attacked"): 0.01}
    for mode, attacked in (("mean", mean), ("stochastic", stochastic)):
        rows |= {(0.1, mode, "clean"): clean, (0.1, mode, "attacked"): attacked}
    return made("closer-look/figure-7", rows)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.01, 0.6, 0.95), [Verdict.SEEN, Verdict.SEEN, Verdict.SEEN]),  # as the paper saw it
        ((0.60, 0.6, 0.995), [Verdict.SEEN, Verdict.NOT_SEEN, Verdict.NOT_SEEN]),
        ((0.01, 0.01, 0.95), [Verdict.NOT_SEEN, Verdict.SEEN, Verdict.UNDECIDED]),
    ],
)
def test_robust_in_stochastic_mode_alone_at_a_price(numbers, expected):
    assert verdicts(gaussians(*numbers)) == expected


def test_samples_that_are_not_the_papers_are_told():
    study = catalogue.find("closer-look/figure-6")

    def verdicts_of(n, agree):
        cell = {"n": n, "agree": agree, "features": [[1.0, 1.0]], "labels": [1]}
        config = study.Config(points=n).plain()
        record = StudyRecord(
            study="closer-look/figure-6", scale="paper", config=config, cells={"points": cell}, total=1
        )
        return [finding.verdict for finding in study.findings(record)]

    assert verdicts_of(1000, [1000, 905]) == [Verdict.SEEN, Verdict.SEEN]
    assert verdicts_of(1000, [999, 800]) == [Verdict.NOT_SEEN, Verdict.NOT_SEEN]
    assert verdicts_of(60, [60, 54]) == [Verdict.SEEN, Verdict.UNDECIDED]
