"""Figure 1 on Fashion-MNIST and random labels: claims on made-up numbers, and whole runs at tiny scale on digits."""

import math
from html import unescape

import pytest
import torch

from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.studies import catalogue, page
from isthmus.studies.ceb.common import best_rho
from isthmus.studies.ceb.experiments import onset, onset_rows
from isthmus.studies.ceb.fashion import NEVER
from isthmus.studies.running import run_study
from isthmus.studies.verdicts import Verdict
from isthmus.training.run import Run
from isthmus.training.run import load as load_run
from tests.studies.records import blocks, fraction, measured, record, row, verdicts

FASHION, LABELS = "ceb/fashion", "ceb/random-labels"
SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
RHOS = (-1.0, 0.0, 1.0, 3.0, 5.0)


def attacked(objective, rho, seed, accuracy, top, success, left, collapsed=False):
    """An experiment; a little apart from seed to seed."""
    nudge, tradeoff = seed / 1000, {} if rho is None else {"rho": rho}
    rows = [
        fraction("test_accuracy", round(10_000 * (accuracy + nudge)), 10_000),
        row("rate_lower_max", top + (2 * nudge if objective == "vib" else nudge), "nats"),
    ]
    for norm, eps, smallest in (("linf", 0.1, 0.02), ("l2", 2.0, 0.5)):
        attack = {"mode": "mean", "norm": norm}
        rows += [
            fraction("success", round(2000 * (success + nudge)), 2000, attack="targeted pgd", eps=eps, **attack),
            fraction("robust_accuracy", left + seed, 1000, attack="ensemble", eps=smallest, **attack),
        ]
    return measured(rows, {"objective": objective, **tradeoff, "seed": seed}, collapsed=collapsed)


def fashion(ceb, vib, plain, seeds=4, more=()):
    """Families as functions of ρ to accuracy, bound, success of the targeted attack and robust images of 1,000."""
    found = [attacked("determ", None, seed, *plain) for seed in range(seeds)]
    for objective, family in (("ceb", ceb), ("vib", vib)):
        found += [attacked(objective, rho, seed, *family(rho)) for rho in RHOS for seed in range(seeds)]
    return record(FASHION, [*found, *more], rhos=RHOS)


def as_printed(rho):
    """CEB as the paper draws it: at ρ = 0 the bound is ln 10, robustness rises as ρ falls."""
    accuracy = 0.91 if rho < 0 else 0.94
    success = 0.2 if rho < 0 else 0.21 + 0.08 * rho
    return accuracy, math.log(10) + 0.3 * rho, success, 500


def slightly_worse(rho):
    accuracy, top, success, left = as_printed(rho)
    return accuracy - 0.02, top, success + 0.1, left


WORST = (0.905, 0, 0.9, 100)


def test_the_papers_numbers_support_every_claim():
    made = fashion(as_printed, slightly_worse, WORST)
    assert verdicts(made) == [SUPPORTED] * 16
    assert "<svg" in page.render(made)


def test_the_opposite_contradicts_every_claim():
    def flat(rho):
        return 0.90, 3.0, (0.65 if rho < 0 else 0.5 - 0.03 * rho), 50

    def better(rho):
        return 0.93, 3.5, 0.3 - 0.03 * rho, 50

    assert verdicts(fashion(flat, better, (0.95, 0, 0.1, 500))) == [CONTRADICTED] * 16


def test_one_seed_and_missing_bottlenecks_decide_nothing():
    assert set(verdicts(fashion(as_printed, slightly_worse, WORST, seeds=1))) == {UNDECIDED}
    plain = record(FASHION, [attacked("determ", None, seed, *WORST) for seed in range(4)])
    assert set(verdicts(plain)) == {UNDECIDED}


def test_collapsed_runs_are_left_out():
    chance = attacked("vib", -1.0, 4, 0.1, 0.0, 0.0, 900, collapsed=True)
    made = fashion(as_printed, slightly_worse, WORST, more=[chance])
    assert len(made.collapsed) == 1
    assert verdicts(made) == [SUPPORTED] * 16


def test_the_chosen_rho_is_the_most_accurate_and_the_lower_of_equals():
    def accuracy(rho):
        return {-1.0: 0.9, 0.0: 0.95, 1.0: 0.9502, 3.0: 0.94, 5.0: 0.93}[rho], 2.0, 0.5, 100

    made = fashion(accuracy, slightly_worse, (0.9, 0, 0.9, 100))
    assert best_rho(made.rows(), "ceb") == 0.0  # 95.0% is printed of both
    assert best_rho(made.rows(), "bidirectional") is None
    assert blocks(made)[-1].rows[1] == ("CEB", "0")


def test_the_page_draws_deterministic_networks_as_levels_and_in_the_table():
    made = fashion(as_printed, slightly_worse, WORST)
    panels, table = blocks(made)[:6], blocks(made)[6]
    assert [len(panel.series) for panel in panels] == [3, 2, 3, 3, 3, 3]
    level = panels[0].series[-1]
    assert (level.x, level.y) == ((-1.0, 5.0), pytest.approx((0.9065, 0.9065)))
    assert [line[:2] for line in table.rows[:3]] == [
        ("deterministic", ""),
        ("CEB", "ρ = −1"),
        ("CEB", "ρ = 0"),
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("fashion")
    settings = {"seeds": 2, "rhos": [0, 3], "repeated": [3], "training.epochs": 6, "images": 20}
    return out, *run_study(FASHION, "tiny", settings, out, show_progress=False)


def test_fashion_on_digits(done):
    _, found, html = done
    assert found.complete
    assert not found.failures
    assert len(found.experiments) == (1 + 2 * 2) + (1 + 2)  # with the second seed at ρ = 3 alone
    assert found.departures["data"] == ("digits", "fashion_mnist")
    text = unescape(html.read_text("utf-8"))
    assert all(claim.claim in text for claim in found.claims)
    rows = found.rows(collapsed=True)
    for each in rows.select("success", {}):
        (clean,) = rows.select("clean_accuracy", {key: each.coords.get(key) for key in ("objective", "rho", "seed")})
        assert each.n == round(clean.value * clean.n)
    for norm in ("linf", "l2"):
        at = {"norm": norm, "objective": "determ", "seed": 0}
        values = [each.value for each in rows.select("robust_accuracy", at)]
        assert len(values) == 4  # ε = 0 and three more
        assert values == sorted(values, reverse=True)


def test_its_numbers_are_those_of_a_direct_attack(done):
    """The targeted success on the deterministic network, by one call on the correct images of other classes."""
    out, found, _ = done
    model = load_run(next((out / "models").glob("digits-determ-seed0-*")))
    data = load("digits")
    indices = balanced(data.test.labels)[:20]
    images, labels = as_float(data.test.images[indices]), data.test.labels[indices]
    right = model(images).argmax(1) == labels
    rows = (right & (labels != 1)).nonzero().squeeze(1)
    result = robust_accuracy(
        model,
        images[rows],
        labels[rows],
        Linf(0.1),
        [{"name": "pgd", "steps": 40, "step_size": 0.01}],
        options=RunOptions(targets=torch.ones(len(rows), dtype=torch.int64), indices=indices[rows]),
    )
    (kept,) = found.rows(collapsed=True).select("success", {"objective": "determ", "seed": 0, "norm": "linf"})
    assert (round(kept.value * kept.n), kept.n) == (int(result.broken.sum()), int(right.sum()))


def labels(memorised, seeds=3, epochs=60, first=41):
    """Models that are right on a fraction of 2,000 images, above chance from an epoch on."""
    models = [("determ", None), *((name, rho) for name in ("vib", "ceb") for rho in (0.0, 3.0, 7.0))]
    found = []
    for seed in range(seeds):
        for objective, rho in models:
            value = memorised(objective, rho)
            course = [value if epoch >= first else 0.1 for epoch in range(1, epochs + 1)]
            rows = [
                fraction("train_accuracy", round(2000 * value), 2000),
                row("constant_accuracy", 0.105, "fraction", 2000),
                *onset_rows(course, 2000, 0.105),
                *(row("epoch_accuracy", each, "fraction", 2000, epoch=at) for at, each in enumerate(course, 1)),
            ]
            tradeoff = {} if rho is None else {"rho": rho}
            found.append(measured(rows, {"objective": objective, **tradeoff, "seed": seed}))
    return record(LABELS, found, rhos=(0, 3, 7))


def little(objective, rho):
    return 0.1 if rho is not None and rho < NEVER else 0.9


def test_memory_as_printed_supports_every_claim():
    made = labels(little)
    assert verdicts(made) == [SUPPORTED] * 4
    courses, memorised, table = blocks(made)
    assert len(courses.series) == 7 + 1
    assert len(memorised.series) == 2 + 2
    assert len(table.rows) == 7


@pytest.mark.parametrize(
    ("memorised", "expected"),
    [
        (lambda objective, rho: 0.9, [SUPPORTED, SUPPORTED, CONTRADICTED, CONTRADICTED]),
        # one leaking ρ is enough
        (
            lambda objective, rho: 0.5 if (objective, rho) == ("vib", 3.0) else little(objective, rho),
            [SUPPORTED, SUPPORTED, SUPPORTED, CONTRADICTED],
        ),
        (lambda objective, rho: 0.1, [CONTRADICTED, UNDECIDED, SUPPORTED, SUPPORTED]),
    ],
)
def test_other_memories(memorised, expected):
    assert verdicts(labels(memorised)) == expected


def test_an_early_onset_contradicts_and_a_short_training_decides_nothing():
    assert verdicts(labels(little, first=5))[1] == CONTRADICTED
    assert verdicts(labels(little, epochs=30, first=25))[1] == UNDECIDED


def test_one_seed_and_no_experiment_decide_nothing():
    assert set(verdicts(labels(little, seeds=1))) == {UNDECIDED}
    empty = record(LABELS, [])
    assert set(verdicts(empty)) == {UNDECIDED}
    assert blocks(empty) == ()


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ([0.1] * 20, None),
        ([0.1] * 10 + [0.2] * 10, 11),
        ([0.1, 0.11, 0.1, 0.9], 4),  # 0.11 of 1,000 may be chance
    ],
)
def test_onset_is_the_first_epoch_surely_above_chance(course, expected):
    assert onset(course, 1000, 0.105) == expected


@pytest.mark.slow
def test_random_labels_on_digits(tmp_path):
    found, html = run_study(LABELS, "tiny", {"seeds": 1, "training.epochs": 40}, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    rows = found.rows()
    (plain,) = rows.select("train_accuracy", {"objective": "determ"})
    assert plain.value > 0.9
    assert rows.select("onset", {"objective": "determ"})
    (tight,) = rows.select("train_accuracy", {"objective": "ceb", "rho": 0.0})
    assert tight.value < 0.3
    run = Run(next((tmp_path / "models").glob("digits-determ-*")))
    train = load(run.recipe.data).train
    (constant,) = rows.select("constant_accuracy", {"objective": "determ"})
    assert constant.value == float(train.labels.bincount().max()) / len(train)
    assert "random labels" in html.read_text("utf-8")


def test_the_catalogue_has_both():
    assert {FASHION, LABELS} <= set(catalogue.names())
