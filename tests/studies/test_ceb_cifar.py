"""CEB on CIFAR-10: claims on made-up numbers, transfers and sets under shift by hand, the whole way at tiny scale."""

from html import unescape
from typing import ClassVar

import numpy as np
import pytest
import torch

from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.pgd import Config as Pgd
from isthmus.attacks.transfer import transferred
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.core.training_options import Adversarial
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.studies import catalogue, page
from isthmus.studies.ceb import cifar_62x7_claims, cifar_choice, cifar_shifts, cifar_transfers
from isthmus.studies.ceb.cifar_28x10 import Config
from isthmus.studies.ceb.cifar_claims import eps_text
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.running import run_study
from isthmus.training.run import load as load_run

SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
SMALL, LARGE, BIDIRECTIONAL = "ceb/cifar-28x10", "ceb/cifar-62x7", "ceb/cifar-62x7-bidirectional"
N = 10_000


def model(kind, rho, seed, clean, pgd, strong, collapsed=False):
    """A cell: ``pgd`` are the accuracies at the ε of comparison and at larger ones, ``strong`` the ensemble's."""
    config = Config()
    curves = {}
    for norm, (at, beyond) in pgd.items():
        grid = getattr(config, norm)
        place = grid.index(getattr(config, f"at_{norm}"))
        standing = [round(N * (at if i <= place else beyond)) for i in range(len(grid))]
        curves[f"pgd {norm}"] = {"n": N, "eps": list(grid), "standing": standing}
        for name, share in (("same images", at), ("ensemble", at if strong is None else strong)):
            curves[f"{name} {norm}"] = {"n": 1000, "eps": [grid[place]], "standing": [round(1000 * share)]}
    facts = {"objective": kind, "knob": rho, "seed": seed, "n": N, "chance": 0.1, "attack": "attacked", "trained": {}}
    facts |= {"test_accuracy": clean + seed * 1e-4, "tested": N, "collapsed": collapsed}
    return {**facts, "modes": {"mean": {"clean": round(N * clean), "curves": curves}}}


def record_of(study, cells, **changes):
    config = catalogue.find(study).SCALES["paper"].plain() | changes
    named = {f"cell {i}": cell for i, cell in enumerate(cells)}
    return StudyRecord(study=study, scale="paper", config=config, cells=named, total=len(named))


def judge(record):
    found = catalogue.find(record.study).findings(record)
    return {finding.claim: finding.verdict for finding in found}


def verdict(found, start):
    return next(value for claim, value in found.items() if claim.startswith(start))


def transfer(name, source, target, share):
    facts = ("objective", "knob", "seed")
    curves = {}
    for norm in ("linf", "l2"):
        grid = getattr(Config(), norm)
        curves[norm] = {"eps": list(grid), "standing": [round(N * share)] * len(grid)}
    ends = {"source": {f: source[f] for f in facts}, "target": {f: target[f] for f in facts}}
    return {"transfer": name, "n": N, "curves": curves, **ends}


def small_networks(sign, collapse, seeds=3, overtakes=True, strong=None):
    """``sign`` 1: robust as the paper saw them. A slope of 4 points for each unit of ρ, alike for each seed."""
    cells = []
    for seed in range(seeds):
        jitter = 0.001 * seed
        plain = {"linf": (0.2 + jitter, 0.0), "l2": (0.5 + jitter, 0.3)}
        normed = {"linf": (0.2 - 0.1 * sign, 0.0), "l2": (0.55, 0.2)}
        cells.append(model("determ", None, seed, 0.944, plain, 0.01))
        cells.append(model("determ_bn", None, seed, 0.944 + 0.02 * sign, normed, 0.0))
        for rho in (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0):
            at = (0.6 - 0.04 * rho if sign > 0 else 0.1 + 0.01 * rho) + jitter
            curves = {"linf": (at, 0.0), "l2": (at + 0.2 * (sign > 0), 0.1 if overtakes else 0.6)}
            clean = 0.944 + (0.001 if sign > 0 else 0.05)
            gone = (rho < 1) == collapse
            cells.append(model("ceb", rho, seed, clean, curves, strong, gone))
            if rho in (1.0, 3.0, 5.0):
                cells.append(model("ceb_bn", rho, seed, clean, curves, 0.0))
    return cells


def test_small_networks_as_the_paper_saw_them():
    cells = small_networks(1, True)
    ours = [cell for cell in cells if cell["objective"] == "ceb" and cell["knob"] == 1.0]
    cells.append(transfer("CEB5 ⇒ CEB1", ours[1], ours[2], 0.9))
    found = judge(record := record_of(SMALL, cells))
    assert "<svg" in page.render(record)
    assert set(found.values()) == {SUPPORTED, UNDECIDED}
    assert [claim for claim, value in found.items() if value is UNDECIDED] == [
        "It stands transfers from Madry better than the attack on itself."
    ]


def test_small_networks_can_say_no():
    cells = small_networks(-1, False, overtakes=False, strong=0.0)
    ours = [cell for cell in cells if cell["objective"] == "ceb" and not cell["collapsed"]]
    cells.append(transfer("CEB0.5 ⇒ CEB-1", ours[-1], min(ours, key=lambda cell: cell["knob"]), 0.0))
    found = judge(record_of(SMALL, cells))
    expected = dict.fromkeys(found, CONTRADICTED) | {
        "It stands transfers from Madry better than the attack on itself.": UNDECIDED
    }
    assert {claim: value for claim, value in found.items() if value is not expected[claim]} == {}


def test_a_single_seed_decides_nothing_about_training():
    found = judge(record_of(SMALL, small_networks(1, True, seeds=1)))
    assert verdict(found, "CEB's accuracy under PGD in ℓ∞ rises") is UNDECIDED
    assert verdict(found, "CEB stands PGD in ℓ∞") is UNDECIDED
    assert verdict(found, "CEB is about as accurate") is UNDECIDED
    assert verdict(found, "At its smallest ρ, CEB's robustness in ℓ2") is UNDECIDED


def test_values_of_rho_with_one_run_count_for_the_trend_but_not_for_every_rho():
    cells = small_networks(1, True)
    bad = {"linf": (0.0, 0.0), "l2": (0.0, 0.0)}
    found = judge(record_of(SMALL, [*cells, model("ceb", 1.25, 0, 0.944, bad, 0.0)]))
    assert verdict(found, "CEB stands PGD in ℓ∞") is SUPPORTED


def test_gradients_that_were_masked_are_found_out_by_the_ensemble():
    found = judge(record_of(SMALL, small_networks(1, True, strong=0.02)))
    assert verdict(found, "CEB stands PGD in ℓ∞") is SUPPORTED
    assert verdict(found, "At its smallest ρ, CEB's robustness in ℓ∞") is CONTRADICTED


def test_nothing_is_said_where_all_collapsed():
    cells = [{**cell, "collapsed": True} for cell in small_networks(1, True)]
    study, record = catalogue.find(SMALL), record_of(SMALL, cells)
    assert {finding.verdict for finding in study.findings(record)} <= {UNDECIDED, CONTRADICTED}
    assert "collapsed to chance" in page.render(record)


def large_networks(sign, kind="ceb", seeds=3):
    cells = []
    for seed in range(seeds):
        for rho, side in ((0.0, sign), (5.0, -sign)):
            at = 0.5 + 0.2 * side + 0.001 * seed
            cells.append(model(kind, rho, seed, 0.97 + 0.01 * side, dict.fromkeys(("linf", "l2"), (at, 0.1)), at))
            for name in ("cifar10_1:v4", "cifar10_1:v6"):
                facts = {"shift": name, "kind": kind, "rho": rho, "seed": seed, "n": 2000}
                cells.append(facts | {"right": round(2000 * (0.85 + 0.08 * side))})
            error = 0.2 - 0.08 * side
            facts = {"shift": "cifar10_c", "kind": kind, "rho": rho, "seed": seed, "n": N, "errors": {}}
            cells.append(facts | {"average": error, "interval": [error - 0.005, error + 0.005]})
    return cells


def at(cells, rho):
    return [cell for cell in cells if cell.get("knob") == rho]


@pytest.mark.parametrize(("study", "kind"), [(LARGE, "ceb"), (BIDIRECTIONAL, "bidirectional")])
def test_large_networks_as_the_papers_saw_them(study, kind):
    cells = large_networks(1, kind)
    pair = transfer("CEB5 ⇒ CEB0", at(cells, 5.0)[-1], at(cells, 0.0)[-1], 0.9)
    found = judge(record := record_of(study, [*cells, pair]))
    text = page.render(record)
    assert "<svg" in text
    assert "97.05%" in text if kind == "ceb" else "97.06%" in text
    assert [claim for claim, value in found.items() if value is not SUPPORTED] == [
        "It stands transfers from Madry better than the attack on itself."
    ]


def test_large_networks_can_say_no():
    cells = large_networks(-1)
    pair = transfer("CEB5 ⇒ CEB0", at(cells, 5.0)[-1], at(cells, 0.0)[-1], 0.1)
    weak = [{**cell, "modes": weakened(cell)} if "modes" in cell else cell for cell in cells]
    found = judge(record_of(LARGE, [*weak, pair]))
    for start in ("ρ = 0 is more", "ρ = 0 generalises", "ρ = 0 errs", "CEB's accuracy", "CEB5", "Some", "At its"):
        assert verdict(found, start) is CONTRADICTED, start
    gone = [{**cell, "collapsed": cell["knob"] == 0.0} if "modes" in cell else cell for cell in cells]
    assert verdict(judge(record_of(LARGE, gone)), "A network of this size trains") is CONTRADICTED


def weakened(cell):
    """Half of what PGD leaves, and nothing after the ensemble."""
    curves = cell["modes"]["mean"]["curves"]
    changed = {
        name: {**curve, "standing": [0 if "ensemble" in name else count // 2 for count in curve["standing"]]}
        for name, curve in curves.items()
    }
    return {"mean": {**cell["modes"]["mean"], "curves": changed}}


def test_what_was_not_measured_says_why():
    cells = [cell for cell in large_networks(1) if "shift" not in cell]
    cells += [{"shift": name, "note": "No such folder."} for name in ("cifar10_1:v4", "cifar10_1:v6", "cifar10_c")]
    record = record_of(LARGE, cells)
    found = cifar_62x7_claims.findings(record)
    absent = [finding for finding in found if "No such folder." in finding.reason]
    assert len(absent) == 3
    assert {finding.verdict for finding in absent} == {UNDECIDED}
    assert "No such folder." in page.render(record)


def test_the_best_run_and_whose_attacks_are_tried_on_it():
    cells = [cell for cell in large_networks(1) if "modes" in cell]
    plain = model("determ", None, 0, 0.9, {"linf": (0.1, 0.0), "l2": (0.1, 0.0)}, 0.0)
    pairs = cifar_choice.pairs([*cells, plain], "ceb", madry=True)
    assert [(pair.name, pair.source and pair.source["seed"], pair.target["seed"]) for pair in pairs] == [
        ("CEB5 ⇒ CEB0", 2, 2),
        ("Det. ⇒ CEB0", 0, 2),
        ("another CEB0 ⇒ CEB0", 1, 2),
        ("Madry ⇒ CEB0", None, 2),
    ]
    equal = [{**cell, "test_accuracy": 0.5} for cell in cells]
    assert cifar_choice.best_run(equal)["seed"] == 0
    assert cifar_choice.best_run([]) is None
    assert cifar_choice.pairs([plain], "ceb", madry=True) == []


def test_the_papers_recipes():
    small, large, both = (catalogue.find(name).SCALES["paper"] for name in (SMALL, LARGE, BIDIRECTIONAL))
    assert len(small.rhos) == 25
    assert (small.rhos[0], small.rhos[1], small.rhos[-1]) == (-1.0, -0.75, 5.0)
    assert (small.steps, large.steps, both.steps) == (20, 20, 7)
    for config in (small, large, both):
        assert config.pgd()[0]["relative_step_size"] == pytest.approx(4 / 3 / config.steps)
    assert small.recipe("ceb", 1.0, 0)["training"]["rho_schedule"] == "cifar_000"
    assert "rho_schedule" not in small.recipe("determ", None, 0)["training"]
    assert small.recipe("determ_bn", None, 0)["model"]["backbone"]["norm"]
    assert small.recipe("determ_bn", None, 0)["objective"] == "deterministic"
    assert not small.recipe("ceb", 1.0, 0)["model"]["backbone"]["norm"]
    assert small.recipe("ceb_bn", 1.0, 0)["objective"]["name"] == "ceb"
    attacked = load_recipe(small.recipe("determ_pgd", None, 0))
    assert attacked.training.adversarial == Adversarial(step_size=2 / 255, batch_norm="train")
    assert attacked.training.adversarial.threat == "linf:8/255"
    assert attacked.model.backbone.norm
    assert attacked.objective.name == "deterministic"
    assert [small.models(seed).count(("determ_pgd", None)) for seed in (0, 1)] == [1, 0]
    assert ("determ_pgd", None) not in small.model_copy(update={"adversarial": None}).models(0)
    assert [eps_text(eps) for eps in (8 / 255, 0.1, 1.0)] == ["8/255", "0.1", "1"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"at_linf": 0.3}, "none of linf; add it there"), ({"l2": [1.0, 0.5]}, "l2 must ascend")],
)
def test_mistakes_are_named(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_study(SMALL, "tiny", settings, tmp_path, show_progress=False)


# --- transfers, by hand ---


class Linear(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight, [-each for each in weight]]), requires_grad=True)

    def forward(self, images):
        return (images - 0.5).flatten(1) @ self.weight.T


def test_a_surrogate_takes_the_whole_way_where_witnesses_stop_at_the_boundary():
    """Two linear models: the source's own direction, followed to the ball's end, also breaks the target."""
    source, target = Linear([1.0, 0.5]), Linear([1.0, 0.0])
    images = torch.tensor([0.55, 0.55]).view(1, 1, 1, 2)
    labels, threat = torch.tensor([0]), Linf(0.08)
    steps = Pgd(steps=40, random_start=False)
    broken = robust_accuracy(source, images, labels, threat, [steps])
    assert broken.broken.all()
    other = cifar_transfers.attack(source, 5, "source")
    result = robust_accuracy(target, images, labels, threat, [other])
    assert result.broken.all()
    torch.testing.assert_close(result.adversarial, images - 0.08)
    assert source.weight.requires_grad
    assert source.weight.grad is None
    # orthogonal features do not transfer
    aside = robust_accuracy(Linear([0.0, 1.0]), images, labels, threat, [cifar_transfers.attack(target, 5, "t")])
    assert not aside.broken.any()


# --- the whole way ---

QUICK = {
    "training.batch_size": 48,
    "train_limit": 1000,
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
    _, record, html = done
    assert record.complete
    assert not record.failures
    notes = [cell["note"] for cell in record.cells.values() if "note" in cell]
    assert notes == ["It is for classifiers of cifar10; these are of digits."] * 2
    text = unescape(html.read_text("utf-8"))
    assert all(finding.claim in text for finding in record.findings)
    assert "Ours beside the printed numbers" in text
    assert len(list(record.each(objective="determ_pgd", attack="attacked"))) == 1
    assert "deterministic, adversarial training" in text
    for cell in record.each(attack="attacked"):
        for curve in cell["modes"]["mean"]["curves"].values():
            assert curve["standing"] == sorted(curve["standing"], reverse=True)


def test_a_transfer_is_what_the_engine_says(done):
    """The first ε by hand; at the next, nothing that fell stands again."""
    out, record, _ = done
    cell = next(cell for cell in record.cells.values() if cell.get("transfer", "").startswith("CEB5"))
    nets = {}
    for path in sorted((out / "models").iterdir()):
        nets[path.name.rpartition("-")[0]] = load_run(path)
    source, target = (nets[f"digits-ceb{cell[end]['knob']:g}-seed0"] for end in ("source", "target"))
    data = load("digits")
    rows = balanced(data.test.labels)[:10]
    images, labels = as_float(data.test.images[rows]), data.test.labels[rows]
    suite = catalogue.find(SMALL).Config.model_validate(record.config).pgd()
    given = (images, labels, Linf(0.05))
    witnesses = transferred(robust_accuracy(source, *given, suite, indices=rows))
    other = cifar_transfers.attack(source, 3, "another name")
    by_hand = robust_accuracy(target, *given, [witnesses, other], indices=rows)
    found = cell["curves"]["linf"]["standing"]
    assert found[0] == int(by_hand.robust.sum())
    assert found[1] <= found[0]
    assert cell["n"] == 10


def test_bidirectional_networks_and_a_source_from_a_run_folder(done, tmp_path):
    out, _, _ = done
    folder = next(path for path in (out / "models").iterdir() if "determ-" in path.name)
    settings = {**QUICK, "seeds": 1, "madry": str(folder), "model.backbone.norm": True}
    record, html = run_study(BIDIRECTIONAL, "tiny", settings, tmp_path, show_progress=False)
    assert record.complete
    assert not record.failures
    names = [cell["transfer"] for cell in record.cells.values() if "transfer" in cell]
    assert names == ["CEB5 ⇒ CEB0", "Madry ⇒ CEB0"]
    text = html.read_text("utf-8")
    assert "selected on what it is then shown on" in text


# --- sets under shift ---


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


class Bench:
    """A laboratory whose only model is Brightest."""

    modes: ClassVar = {"mean": Brightest()}
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def subject(self, kind, rho, seed):
        return self


def test_cifar10_1_is_read_from_its_files_where_they_are(mirror):
    config = Config(shifts=("cifar10_1:v4", "cifar10_1:v6", "cifar10_c"))
    trained = [{"objective": "ceb", "knob": 1.0, "seed": 0}]
    v4, v6, corrupted = cifar_shifts.cells(config, Bench(), trained)
    found = v6.measure()
    images = np.load(mirror / "cifar10.1_v6_data.npy").astype(np.float64)
    right = images.mean((2, 3))[:, :10].argmax(1) == np.load(mirror / "cifar10.1_v6_labels.npy")
    assert found == {"shift": "cifar10_1:v6", "kind": "ceb", "rho": 1.0, "seed": 0, "n": 2000, "right": right.sum()}
    assert "lacks cifar10.1_v4_data.npy" in v4.measure()["note"]
    assert "CIFAR-10-C" in corrupted.measure()["note"]
    assert v4.about["absent"] == v4.measure()["note"]


def test_a_set_that_was_absent_is_another_cell_once_it_is_there(mirror):
    config = Config(shifts=("cifar10_1:v4",))
    trained = [{"objective": "ceb", "knob": 1.0, "seed": 0}]
    (before,) = cifar_shifts.cells(config, Bench(), trained)
    for part, content in (("data", np.zeros((2021, 32, 32, 3), np.uint8)), ("labels", np.zeros(2021, np.int64))):
        np.save(mirror / f"cifar10.1_v4_{part}.npy", content)
    (after,) = cifar_shifts.cells(config, Bench(), trained)
    assert before.plain != after.plain
    assert after.measure()["right"] == 2021  # all images are black: the first class wins, which all are of
