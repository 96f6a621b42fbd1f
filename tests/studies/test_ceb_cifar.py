"""CEB on CIFAR-10: claims on made-up numbers, transfers and shifted sets, and whole runs at tiny scale on digits."""

from html import unescape

import numpy as np
import pytest
import torch

from isthmus.attacks import PGD as Pgd
from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.transfer import transferred
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.core.training_options import Adversarial
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.studies import catalogue, page
from isthmus.studies.ceb import cifar_experiments
from isthmus.studies.ceb.cifar_claims import SOURCES, eps_text
from isthmus.studies.ceb.cifar_configs import SAME_IMAGES, Cifar28x10Config, shift_name
from isthmus.studies.ceb.cifar_experiments import shift_rows
from isthmus.studies.ceb.common import best_run
from isthmus.studies.ceb.transfers import Finished, pairs, surrogate
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.running import run_study
from isthmus.studies.store import ResultStore
from isthmus.studies.verdicts import Verdict
from isthmus.training.run import load as load_run
from tests.studies.records import blocks, fraction, measured, record, row, verdicts, with_interval

SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
SMALL, LARGE, BIDIRECTIONAL = "ceb/cifar-28x10", "ceb/cifar-62x7", "ceb/cifar-62x7-bidirectional"
N = 10_000


def network(objective, rho, seed, clean, pgd, strong, collapsed=False):
    """Rows of one model: ``pgd`` are accuracies at the ε of comparison and at larger ones, by norm."""
    config, own = Cifar28x10Config(), ModelSpec(objective, rho, seed).coords()
    rows = [fraction("test_accuracy", round(N * clean) + seed, N)]
    for norm, (at, beyond) in pgd.items():
        here = config.at(norm)
        for eps in (0.0, *getattr(config, norm)):
            value = clean if eps == 0 else at if eps <= here else beyond
            rows.append(fraction("robust_accuracy", round(N * value), N, attack="pgd", norm=norm, eps=eps))
        for attack, value in ((SAME_IMAGES, at), ("ensemble", at if strong is None else strong)):
            rows.append(fraction("robust_accuracy", round(1000 * value), 1000, attack=attack, norm=norm, eps=here))
    kept = [each.named(each.name, mode="mean") if "norm" in each.coords else each for each in rows]
    return [
        measured(kept, own, collapsed=collapsed),
        measured([row("trained", float(not collapsed), "fraction")], own),
    ]


def transfer(value, of, rho, seed, own, source="largest rho"):
    """A transfer that leaves one accuracy, and PGD on the model itself another."""
    config = Cifar28x10Config()
    rows = [
        fraction(name, round(N * each), N, norm=norm, eps=config.at(norm))
        for norm in ("linf", "l2")
        for name, each in (("transfer_accuracy", value), ("direct_accuracy", own))
    ]
    return measured(rows, {**ModelSpec(of, rho, seed).coords(), "source": source})


def small_networks(sign, collapse, seeds=3, overtakes=True, strong=None):
    """``sign`` 1: robust as in the paper. A slope of 4 points for each unit of ρ, alike for each seed."""
    found = []
    for seed in range(seeds):
        jitter = 0.001 * seed
        plain = {"linf": (0.2 + jitter, 0.0), "l2": (0.5 + jitter, 0.3)}
        normed = {"linf": (0.2 - 0.1 * sign, 0.0), "l2": (0.55, 0.2)}
        found += network("determ", None, seed, 0.944, plain, 0.01)
        found += network("determ_bn", None, seed, 0.944 + 0.02 * sign, normed, 0.0)
        for rho in (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0):
            at = (0.6 - 0.04 * rho if sign > 0 else 0.1 + 0.01 * rho) + jitter
            curves = {"linf": (at, 0.0), "l2": (at + 0.2 * (sign > 0), 0.1 if overtakes else 0.6)}
            clean = 0.944 + (0.001 if sign > 0 else 0.05)
            found += network("ceb", rho, seed, clean, curves, strong, (rho < 1) == collapse)
            if rho in (1.0, 3.0, 5.0):
                found += network("ceb_bn", rho, seed, clean, curves, 0.0)
    return found


def by_claim(made):
    judged = catalogue.find(made.study).judge(made)
    return {each.claim: each.verdict for each in judged}


def verdict(made, part):
    return next(value for claim, value in by_claim(made).items() if part in claim)


def test_small_networks_as_in_the_paper():
    made = record(SMALL, [*small_networks(1, True), transfer(0.9, "ceb", 1.0, 2, 0.56)])
    found = by_claim(made)
    assert [claim for claim, value in found.items() if value is not SUPPORTED] == [
        claim for claim in found if SOURCES["madry"] in claim and "transfers" in claim
    ]
    assert len(found) == 14
    assert "<svg" in page.render(made)


def test_small_networks_can_contradict_every_claim():
    experiments = small_networks(-1, False, overtakes=False, strong=0.0)
    made = record(SMALL, [*experiments, transfer(0.0, "ceb", -1.0, 0, 0.09)], repeated=None)
    found = by_claim(made)
    assert {claim for claim, value in found.items() if value is not CONTRADICTED} == {
        claim for claim in found if SOURCES["madry"] in claim and "transfers" in claim
    }


def test_a_single_seed_decides_nothing_about_training():
    found = by_claim(record(SMALL, small_networks(1, True, seeds=1)))
    decided = {claim for claim, value in found.items() if value is not UNDECIDED}
    assert all(claim.startswith("Some") for claim in decided)


def test_values_of_rho_with_one_run_count_for_the_trend_but_not_for_every_rho():
    bad = {"linf": (0.0, 0.0), "l2": (0.0, 0.0)}
    made = record(SMALL, [*small_networks(1, True), *network("ceb", 1.25, 0, 0.944, bad, 0.0)])
    assert verdict(made, "CEB is more robust to PGD in ℓ∞") is SUPPORTED


def test_an_ensemble_detects_masked_gradients():
    made = record(SMALL, small_networks(1, True, strong=0.02))
    assert verdict(made, "CEB is more robust to PGD in ℓ∞") is SUPPORTED
    assert verdict(made, "At its smallest ρ, CEB's robustness in ℓ∞") is CONTRADICTED


def test_collapsed_models_decide_nothing_but_whether_they_train():
    experiments = [
        {**each, "collapsed": True} if each["rows"][0]["name"] == "test_accuracy" else each
        for each in small_networks(1, True)
    ]
    found = verdicts(record(SMALL, experiments))
    assert (found[0], set(found[1:])) == (SUPPORTED, {UNDECIDED})


def large_networks(sign, objective="ceb", seeds=3, pgd=1.0, strong=None, collapsed=None):
    found = []
    for seed in range(seeds):
        for rho, side in ((0.0, sign), (5.0, -sign)):
            at = pgd * (0.5 + 0.2 * side + 0.001 * seed)
            curves = dict.fromkeys(("linf", "l2"), (at, 0.1))
            found += network(objective, rho, seed, 0.97 + 0.01 * side, curves, strong, rho == collapsed)
            own = ModelSpec(objective, rho, seed).coords()
            if rho != collapsed:
                for name in ("cifar10_1:v4", "cifar10_1:v6"):
                    shifted = fraction("shift_accuracy", round(2000 * (0.85 + 0.08 * side)) + seed, 2000)
                    found.append(measured([shifted], {**own, "data": name}))
                error = 0.2 - 0.08 * side + 0.001 * seed
                mean = with_interval("corruption_error", error, error - 0.005, error + 0.005, n=N)
                found.append(measured([mean], {**own, "data": "cifar10_c"}))
    return found


@pytest.mark.parametrize(("study", "objective"), [(LARGE, "ceb"), (BIDIRECTIONAL, "bidirectional")])
def test_large_networks_as_in_the_papers(study, objective):
    made = record(study, [*large_networks(1, objective), transfer(0.9, objective, 0.0, 2, 0.7)])
    found = by_claim(made)
    assert [claim for claim, value in found.items() if value is not SUPPORTED] == [
        claim for claim in found if SOURCES["madry"] in claim and "transfers" in claim
    ]
    text = page.render(made)
    assert "<svg" in text
    assert ("97.05%" if objective == "ceb" else "97.06%") in text


def test_large_networks_can_contradict():
    experiments = large_networks(-1, pgd=0.5, strong=0.0)
    made = record(LARGE, [*experiments, transfer(0.1, "ceb", 0.0, 2, 0.2)])
    supported = "trains at ρ = 0"
    for claim, value in by_claim(made).items():
        expected = SUPPORTED if supported in claim else UNDECIDED if "transfers from Madry" in claim else CONTRADICTED
        assert value is expected, claim
    gone = record(LARGE, large_networks(1, collapsed=0.0))
    assert verdict(gone, supported) is CONTRADICTED


def test_the_page_has_the_reason_for_what_was_not_measured():
    note = "No such folder."
    absent = [
        measured([row("shift_accuracy", None, "fraction", 0).model_copy(update={"note": note})], {"data": name})
        for name in ("cifar10_1:v4", "cifar10_1:v6", "cifar10_c")
    ]
    networks = [each for each in large_networks(1) if each["rows"][0]["name"] in ("test_accuracy", "trained")]
    made = record(LARGE, [*networks, *absent])
    assert sum(value is UNDECIDED for claim, value in by_claim(made).items() if "ρ = 5" in claim) == 3
    assert blocks(made)[-1].rows[0] == ("shift accuracy, cifar10_1:v4", note)


def finished(objective, rho, seed, accuracy):
    return Finished(ModelSpec(objective, rho, seed), accuracy, False, ())


def test_the_best_run_and_whose_attacks_are_tried_on_it():
    runs = [finished("ceb", rho, seed, 0.9 + 0.01 * seed) for rho in (0.0, 5.0) for seed in range(3)]
    plain = finished("determ", None, 0, 0.9)
    found = pairs([*runs, plain], "ceb", madry=True)
    assert [(pair.name, pair.source and pair.source.seed, pair.target.model.seed) for pair in found] == [
        ("largest rho", 2, 2),
        ("deterministic", 0, 2),
        ("another run", 1, 2),
        ("madry", None, 2),
    ]
    assert {pair.name for pair in found} == set(SOURCES)
    equal = {run.model: 0.5 for run in runs}
    assert best_run(equal, "ceb", 0.0).seed == 0
    assert best_run({}, "ceb", 0.0) is None
    assert pairs([plain], "ceb", madry=True) == []


def test_the_papers_recipes():
    small, large, both = (catalogue.find(name).preset("paper") for name in (SMALL, LARGE, BIDIRECTIONAL))
    assert len(small.rhos) == 25
    assert (small.rhos[0], small.rhos[1], small.rhos[-1]) == (-1.0, -0.75, 5.0)
    assert (small.steps, large.steps, both.steps) == (20, 20, 7)
    for config in (small, large, both):
        assert config.pgd()[0]["relative_step_size"] == pytest.approx(4 / 3 / config.steps)
    ceb, plain, normed = ModelSpec("ceb", 1.0, 0), ModelSpec("determ", None, 0), ModelSpec("determ_bn", None, 0)
    assert small.recipe(ceb)["training"]["rho_schedule"] == "cifar_000"
    assert "rho_schedule" not in small.recipe(plain)["training"]
    assert small.recipe(normed)["model"]["backbone"]["norm"]
    assert small.recipe(normed)["objective"] == "deterministic"
    assert not small.recipe(ceb)["model"]["backbone"]["norm"]
    assert small.recipe(ModelSpec("ceb_bn", 1.0, 0))["objective"]["name"] == "ceb"
    attacked = load_recipe(small.recipe(ModelSpec("determ_pgd", None, 0)))
    assert attacked.training.adversarial == Adversarial(step_size=2 / 255, batch_norm="train")
    assert attacked.training.adversarial.threat == "linf:8/255"
    assert attacked.model.backbone.norm
    assert attacked.objective.name == "deterministic"
    assert [small.of_seed(seed).count(("determ_pgd", None)) for seed in (0, 1)] == [1, 0]
    assert ("determ_pgd", None) not in small.model_copy(update={"adversarial": None}).of_seed(0)
    assert [eps_text(eps) for eps in (8 / 255, 0.1, 1.0)] == ["8/255", "0.1", "1"]
    assert [shift_name(given) for given in large.shifts] == ["cifar10_1:v4", "cifar10_1:v6", "cifar10_c"]
    assert shift_name({"name": "cifar10_1"}) == "cifar10_1:v6"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"at_linf": 0.3}, "none of linf; add it there"), ({"l2": [1.0, 0.5]}, "l2 must ascend")],
)
def test_mistakes_are_named(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_study(SMALL, "tiny", settings, tmp_path, show_progress=False)


class Linear(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight, [-each for each in weight]]), requires_grad=True)

    def forward(self, images):
        return (images - 0.5).flatten(1) @ self.weight.T


def test_a_surrogate_takes_all_its_steps_whereas_adversarial_examples_stop_at_the_boundary():
    """Two linear models: the source's own direction, followed to the ball's end, also breaks the target."""
    source, target = Linear([1.0, 0.5]), Linear([1.0, 0.0])
    images = torch.tensor([0.55, 0.55]).view(1, 1, 1, 2)
    labels, threat = torch.tensor([0]), Linf(0.08)
    steps = Pgd(steps=40, random_start=False)
    assert robust_accuracy(source, images, labels, threat, [steps]).broken.all()
    result = robust_accuracy(target, images, labels, threat, [surrogate(source, 5, "source")])
    assert result.broken.all()
    torch.testing.assert_close(result.adversarial, images - 0.08)
    assert source.weight.requires_grad
    assert source.weight.grad is None
    # orthogonal features do not transfer
    aside = robust_accuracy(Linear([0.0, 1.0]), images, labels, threat, [surrogate(target, 5, "t")])
    assert not aside.broken.any()


QUICK = {
    "training.batch_size": 48,
    "train_limit": 480,
    "images": 10,
    "linf": [0.05, 0.1],
    "l2": [0.5, 1.0],
    "steps": 3,
    "ensemble": ["fgsm"],
    "ensemble_images": 5,
    "model.backbone": {"name": "wide_resnet", "depth": 7, "width": 1, "norm": False},
    "training.epochs": 1,
    "rho_schedule": None,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("cifar")
    settings = {**QUICK, "seeds": 1, "rhos": [3.0, 5.0], "normed": []}
    return out, *run_study(SMALL, "tiny", settings, out, show_progress=False)


def test_small_networks_on_digits(done):
    _, found, html = done
    assert found.complete
    assert not found.failures
    notes = [row.note for each in found.experiments.values() for row in each.metrics if row.note]
    assert notes == ["It is for classifiers of cifar10; these are of digits."] * 2
    text = unescape(html.read_text("utf-8"))
    assert all(claim.claim in text for claim in found.claims)
    assert "deterministic, adversarial training" in text
    rows = found.rows(collapsed=True)
    assert len(rows.select("trained", {})) == 5
    for each in found.experiments.values():
        for norm in ("linf", "l2"):
            own = [row for row in each.metrics if row.name == "robust_accuracy" and row.coords["norm"] == norm]
            values = [row.value for row in own if row.coords["attack"] == "pgd"]
            assert values == sorted(values, reverse=True)


def test_a_transfer_is_what_the_engine_finds(done):
    """The first ε by hand; what is broken at one ε counts at the next."""
    out, found, _ = done
    (each,) = (each for each in found.experiments.values() if each.metrics[0].coords.get("source") == "largest rho")
    kept = [row for row in each.metrics if row.name == "transfer_accuracy" and row.coords["norm"] == "linf"]
    coords = each.metrics[0].coords
    nets = {path.name.rpartition("-")[0]: load_run(path) for path in sorted((out / "models").iterdir())}
    source, target = nets["digits-ceb5-seed0"], nets[f"digits-ceb{coords['rho']:g}-seed{coords['seed']}"]
    data = load("digits")
    rows = balanced(data.test.labels)[:10]
    images, labels = as_float(data.test.images[rows]), data.test.labels[rows]
    suite = Cifar28x10Config.model_validate(found.config).pgd()
    given = (images, labels, Linf(0.05))
    examples = transferred(robust_accuracy(source, *given, suite, options=RunOptions(indices=rows)))
    by_hand = robust_accuracy(
        target, *given, [examples, surrogate(source, 3, "another name")], options=RunOptions(indices=rows)
    )
    assert round(kept[0].value * kept[0].n) == int(by_hand.robust.sum())
    assert kept[1].value <= kept[0].value
    assert kept[0].n == 10


@pytest.mark.slow
def test_bidirectional_networks_and_a_source_from_a_run_folder(done, tmp_path):
    out, _, _ = done
    folder = next(path for path in (out / "models").iterdir() if "determ-" in path.name)
    settings = {**QUICK, "seeds": 1, "madry": str(folder), "model.backbone.norm": True}
    found, html = run_study(BIDIRECTIONAL, "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    sources = {row.coords["source"] for row in found.rows().select("transfer_accuracy", {})}
    assert sources == {"largest rho", "madry"}
    assert "selected by its accuracy on the test set" in html.read_text("utf-8")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    folder = tmp_path / "modestyachts/CIFAR-10.1/datasets"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    np.save(folder / "cifar10.1_v6_data.npy", random.integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "cifar10.1_v6_labels.npy", random.integers(0, 10, 2000))
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    return folder


class Brightest(torch.nn.Module):
    """Ten classes by mean brightness of the first ten rows, so that it is right by chance on noise."""

    def forward(self, images):
        return images.mean((1, 3))[:, :10]


CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MODEL = [ModelSpec("ceb", 1.0, 0)]


def test_cifar10_1_is_read_from_its_files_if_they_are_there(mirror, tmp_path):
    config, store = Cifar28x10Config(shifts=("cifar10_1:v4", "cifar10_1:v6", "cifar10_c")), ResultStore(tmp_path)
    v4, v6, corrupted = cifar_experiments.shift_experiments(config, store, MODEL)
    assert v6.name == "cifar10_1:v6, ceb 1, seed 0"
    (found,) = shift_rows(Brightest(), "cifar10_1:v6", CLASSES, store)
    images = np.load(mirror / "cifar10.1_v6_data.npy").astype(np.float64)
    right = images.mean((2, 3))[:, :10].argmax(1) == np.load(mirror / "cifar10.1_v6_labels.npy")
    assert (round(found.value * found.n), found.n) == (right.sum(), 2000)
    assert "lacks cifar10.1_v4_data.npy" in v4.measure()["rows"][0]["note"]
    assert "CIFAR-10-C" in corrupted.measure()["rows"][0]["note"]
    assert v4.about["absent"] == v4.measure()["rows"][0]["note"]


def test_a_set_that_was_absent_is_another_experiment_once_it_is_there(mirror, tmp_path):
    config, store = Cifar28x10Config(shifts=("cifar10_1:v4",)), ResultStore(tmp_path)
    (before,) = cifar_experiments.shift_experiments(config, store, MODEL)
    for part, content in (("data", np.zeros((2021, 32, 32, 3), np.uint8)), ("labels", np.zeros(2021, np.int64))):
        np.save(mirror / f"cifar10.1_v4_{part}.npy", content)
    (after,) = cifar_experiments.shift_experiments(config, store, MODEL)
    assert before.plain != after.plain
    (found,) = shift_rows(Brightest(), "cifar10_1:v4", CLASSES, store)
    assert found.value == 1.0  # all images are black: the first class wins, which is that of all
