"""The Fashion-MNIST study: claims on made-up numbers, and the whole way at tiny scale on digits."""

import math
from html import unescape

import pytest
import torch

from isthmus.attacks import Linf, robust_accuracy
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.studies import catalogue, page
from isthmus.studies.ceb import sweeps
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.running import run_study
from isthmus.training.run import load as load_run

NAME = "ceb/fashion"
SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
N, TESTED = 2000, 10_000
RHOS = (-1.0, 0.0, 1.0, 3.0, 5.0)


def cell(kind, rho, seed, accuracy, top, reached, standing, collapsed=False):
    """A cell as the laboratory leaves it; a little apart from seed to seed."""
    nudge = seed / 1000
    targeted = {"n": N, "right": N, "eligible": N, "eps": [0.1], "reached": [round(N * (reached + nudge))]}
    left = {"n": 1000, "eps": [0.02, 0.1], "standing": [standing + seed, 0]}
    return {
        "objective": kind,
        "knob": rho,
        "seed": seed,
        "n": N,
        "chance": 0.1,
        "test_accuracy": accuracy + nudge,
        "tested": TESTED,
        "collapsed": collapsed,
        "trained": {"rate_lower_max": top + nudge, "epoch_rate_lower": top - 0.1, "epoch_rate": top + 0.2},
        "attack": "attacked",
        "modes": {
            "mean": {
                "clean": round(N * accuracy),
                "curves": dict.fromkeys(("targeted linf", "targeted l2"), targeted)
                | dict.fromkeys(("ensemble linf", "ensemble l2"), left),
            }
        },
    }


def record(ceb, vib, plain, seeds=4):
    """Families as functions of ρ to (accuracy, bound, success of the targeted attack, what the ensemble leaves)."""
    cells = {f"determ {seed}": cell("determ", None, seed, *plain) for seed in range(seeds)}
    for kind, family in (("ceb", ceb), ("vib", vib)):
        for rho in RHOS:
            cells |= {f"{kind} {rho} {seed}": cell(kind, rho, seed, *family(rho)) for seed in range(seeds)}
    config = catalogue.find(NAME).SCALES["paper"].plain()
    return StudyRecord(study=NAME, scale="paper", config=config, cells=cells, total=len(cells))


def as_printed(rho):
    """CEB as the paper draws it: at ρ = 0 the bound is ln 10, robustness rises as ρ falls."""
    accuracy = 0.91 if rho < 0 else 0.94
    reached = 0.2 if rho < 0 else 0.21 + 0.08 * rho
    return accuracy, math.log(10) + 0.3 * rho, reached, 500


def slightly_worse(rho):
    accuracy, top, reached, standing = as_printed(rho)
    return accuracy - 0.02, top, reached + 0.1, standing


def verdicts(measured):
    found = catalogue.find(NAME).findings(measured)
    assert "<svg" in page.render(measured.model_copy(update={"findings": tuple(found)}))
    return {finding.claim: finding.verdict for finding in found}


def test_what_the_papers_say_is_seen_where_it_is_so():
    # the deterministic network is worse than all of CEB, and loses to it under the ensemble
    found = verdicts(record(as_printed, slightly_worse, (0.905, 0, 0.9, 100)))
    assert set(found.values()) == {SUPPORTED}
    assert len(found) == 16


def test_the_opposite_is_not_seen():
    def flat(rho):
        return 0.90, 3.0, (0.65 if rho < 0 else 0.5 - 0.03 * rho), 50

    def better(rho):
        return 0.93, 3.5, 0.3 - 0.03 * rho, 50

    found = verdicts(record(flat, better, (0.95, 0, 0.1, 500)))
    assert set(found.values()) == {CONTRADICTED}


def test_one_seed_decides_nothing_about_training():
    found = verdicts(record(as_printed, slightly_worse, (0.905, 0, 0.9, 100), seeds=1))
    assert set(found.values()) == {UNDECIDED}


def test_collapsed_runs_are_kept_apart():
    whole = record(as_printed, slightly_worse, (0.905, 0, 0.9, 100))
    cells = dict(whole.cells)
    cells["vib -1.0 0"] = cell("vib", -1.0, 0, 0.1, 0.0, 0.0, 1000, collapsed=True)
    marred = whole.model_copy(update={"cells": cells})
    assert marred.collapsed == ["vib -1.0 0"]
    assert "vib -1.0 0 collapsed" in page.render(marred)
    assert sweeps.clean(sweeps.cells_at(marred, "vib", -1.0)).value > 0.85
    assert set(verdicts(marred).values()) == {SUPPORTED}


def test_the_selected_rho_is_the_most_accurate_and_the_lower_of_equals():
    def accuracy(rho):
        return {-1.0: 0.9, 0.0: 0.95, 1.0: 0.9502, 3.0: 0.94, 5.0: 0.93}[rho], 2.0, 0.5, 100

    measured = record(accuracy, slightly_worse, (0.9, 0, 0.9, 100))
    assert sweeps.best(measured, "ceb") == 0.0  # 95.0% is printed of both
    assert sweeps.best(measured, "bidirectional") is None


def test_without_a_bottleneck_nothing_is_decided():
    measured = record(as_printed, slightly_worse, (0.9, 0, 0.9, 100))
    plain = {name: cell for name, cell in measured.cells.items() if cell["objective"] == "determ"}
    assert set(verdicts(measured.model_copy(update={"cells": plain})).values()) == {UNDECIDED}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("fashion")
    settings = {"seeds": 2, "rhos": [0, 3, 5], "repeated": [3], "training.epochs": 8, "images": 50}
    return out, *run_study(NAME, "tiny", settings, out, show_progress=False)


def test_the_whole_way_on_digits(done):
    _, measured, html = done
    assert measured.complete
    assert not measured.failures
    assert len(measured.cells) == (1 + 2 * 3) + (1 + 2)  # with the second seed at ρ = 3 alone
    assert measured.departures["data"] == ("digits", "fashion_mnist")
    text = unescape(html.read_text("utf-8"))
    assert all(finding.claim in text for finding in measured.findings)
    for each in measured.cells.values():
        curves = each["modes"]["mean"]["curves"]
        assert list(curves) == ["targeted linf", "targeted l2", "ensemble linf", "ensemble l2"]
        for curve in ("targeted linf", "targeted l2"):
            assert 0 <= curves[curve]["reached"][0] <= curves[curve]["eligible"] <= curves[curve]["right"]
            assert curves[curve]["right"] == each["modes"]["mean"]["clean"]
        for curve in ("ensemble linf", "ensemble l2"):
            assert curves[curve]["standing"] == sorted(curves[curve]["standing"], reverse=True)


def test_its_numbers_are_those_of_an_attack_by_hand(done):
    """The targeted success of the deterministic network, by one call on the images that are right and no 1."""
    out, measured, _ = done
    kept = next(cell for cell in measured.each(objective="determ", seed=0))
    model = load_run(next((out / "models").glob("digits-determ-seed0-*")))
    data = load("digits")
    indices = balanced(data.test.labels)[:50]
    images, labels = as_float(data.test.images[indices]), data.test.labels[indices]
    right = model(images).argmax(1) == labels
    rows = (right & (labels != 1)).nonzero().squeeze(1)
    result = robust_accuracy(
        model,
        images[rows],
        labels[rows],
        Linf(0.1),
        [{"name": "pgd", "steps": 40, "step_size": 0.01}],
        targets=torch.ones(len(rows), dtype=torch.int64),
        indices=indices[rows],
    )
    curve = kept["modes"]["mean"]["curves"]["targeted linf"]
    assert (curve["right"], curve["eligible"]) == (int(right.sum()), len(rows))
    assert curve["reached"] == [int(result.broken.sum())]
