"""The studies of Guess First the whole way at tiny scale, on digits, and their numbers by hand."""

from html import unescape

import pytest
import torch
from torch.nn.functional import cross_entropy

from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.foolbox_protocol import scan_fgsm
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.core.randomness import example_keys
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.information.mmd import mmd2
from isthmus.studies.guess_first.eliminated import probe
from isthmus.studies.guess_first.transfers import rescaled
from isthmus.studies.running import run_study
from isthmus.training.run import load as load_run

SETTINGS = {"models": ["CNN", "C-JS"], "images": 20, "battery_images": 20, "training.epochs": 8}
CW = {"name": "cw", "steps": 20, "binary_search_steps": 3, "learning_rate": 5e-2}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("guess_first")


@pytest.fixture(scope="module")
def table(out):
    return run_study("guess-first/table-1", "tiny", SETTINGS, out, show_progress=False)


@pytest.fixture(scope="module")
def judged():
    data = load("digits")
    indices = balanced(data.test.labels)[:20]
    return as_float(data.test.images[indices]), data.test.labels[indices], indices


def model_of(out, name):
    return load_run(next((out / "models").glob(f"digits-{name}-seed0-*")))


def cell_of(record, trial, **wanted):
    return next(record.each(trial=trial, **wanted))


def right(model, images, labels):
    with torch.no_grad():
        return model(images).argmax(1) == labels


def test_a_table_runs_on_digits(table):
    record, html = table
    assert record.complete
    assert not record.failures
    assert len(record.cells) == 2 + 1 + 2 + 2
    assert record.departures["data"] == ("digits", "mnist")
    text = unescape(html.read_text("utf-8"))
    assert all(finding.claim in text for finding in record.findings)
    assert "printed" not in str(record.cells)
    for name in ("CNN", "C-JS"):
        found = cell_of(record, "white-box", model=name)
        assert found["clean"] > 2
        for attack in found["attacks"].values():
            assert found["clean"] >= attack["standing"][0] >= attack["standing"][1] >= 0
            assert attack["never"] <= attack["standing"][-1]
        verdict = cell_of(record, "verdict", model=name)
        assert verdict["corrected"] <= verdict["reported"] <= found["clean"]
        assert "one_step" in verdict["tests"]


def test_images_of_fgsm_and_pgd_are_those_of_the_formulas(table, out, judged):
    """By autograd, without the attack room: on the substitute, then shown to a model."""
    images, labels, indices = judged
    substitute, victim = model_of(out, "substitute"), model_of(out, "c-js")
    found = cell_of(table[0], "black-box")["victims"]["C-JS"]

    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(cross_entropy(substitute(x), labels, reduction="sum"), x)[0]

    clean = right(victim, images, labels)
    assert found["clean"] == int(clean.sum())
    for at, eps in enumerate((0.15, 0.3)):
        moved = (images + eps * gradient(images).sign()).clamp(0, 1)
        assert found["attacks"]["fgsm"]["standing"][at] == int((clean & right(victim, moved, labels)).sum())
        x = Linf(eps).random_start(images, example_keys(0, indices))
        assert (x != images).any()
        for _ in range(40):
            x = x + eps / 30 * gradient(x).sign()
            x = (images + (x - images).clamp(-eps, eps)).clamp(0, 1)
        assert found["attacks"]["pgd"]["standing"][at] == int((clean & right(victim, x, labels)).sum())


def test_images_of_cw_are_scaled_and_clipped(table, out, judged):
    images, labels, indices = judged
    substitute, victim = model_of(out, "substitute"), model_of(out, "cnn")
    found = cell_of(table[0], "black-box")
    norms = minimal_norms(substitute, images, labels, "l2", [CW], indices=indices)
    delta = norms.adversarial - images
    moved = delta.flatten(1).norm(dim=1) > 0
    assert found["moved"]["cw"] == int(moved.sum())
    clean = right(victim, images, labels)
    for at, eps in enumerate((1.0, 2.0)):
        length = delta.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        shown = (images + eps * delta / length).clamp(0, 1)
        standing = found["victims"]["CNN"]["attacks"]["cw"]["standing"]
        assert standing[at] == int((clean & right(victim, shown, labels)).sum())


def test_rescaling_keeps_the_direction_and_the_box():
    images = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.5]]).view(3, 1, 1, 2)
    deltas = torch.tensor([[0.03, 0.04], [0.0, 0.0], [0.3, 0.4]]).view(3, 1, 1, 2)
    found = rescaled(images, deltas, 0.25).view(3, 2)
    assert torch.allclose(found, torch.tensor([[0.65, 0.7], [0.5, 0.5], [1.0, 0.7]]))


def test_norms_and_the_ensemble_are_those_of_the_attacks_by_hand(table, out, judged):
    images, labels, indices = judged
    model = model_of(out, "cnn")
    white = cell_of(table[0], "white-box", model="CNN")["attacks"]
    cw = minimal_norms(model, images, labels, "l2", [CW], indices=indices)
    assert white["cw"]["standing"] == [round(20 * cw.accuracy(eps)) for eps in (1.0, 2.0)]
    fgsm = scan_fgsm(model, images, labels, indices=indices).sizes
    assert white["fgsm"]["standing"] == [int((fgsm > eps + 1e-6).sum()) for eps in (0.15, 0.3)]
    assert white["fgsm"]["never"] == int(fgsm.isinf().sum())
    left = cell_of(table[0], "ensemble", model="CNN")["left"]
    result = robust_accuracy(model, images, labels, "linf:0.15", "pgd", indices=indices)
    assert left["linf"]["standing"][0] == int(result.robust.sum())
    assert left["linf"]["standing"][1] <= left["linf"]["standing"][0]


def test_figure_3_takes_over_all_that_table_1_measured(table, out):
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.parent.name in ("models", "cells")}
    settings = {key: value for key, value in SETTINGS.items() if key != "battery_images"}
    record, html = run_study("guess-first/figure-3", "tiny", settings, out, show_progress=False)
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.parent.name in ("models", "cells")}
    assert after == before
    assert set(record.cells) == {name for name in table[0].cells if "white-box" in name or "black-box" in name}
    assert all(record.cells[name] == table[0].cells[name] for name in record.cells)
    assert html.read_text("utf-8").count("<svg") >= 6


def test_another_grid_needs_no_further_white_box_attack(table, out):
    kept = set((out / "cells").glob("norms-*"))
    settings = {key: value for key, value in SETTINGS.items() if key != "battery_images"}
    wider = {**settings, "linf": [0.1, 0.15, 0.3], "models": ["CNN"]}
    record, _ = run_study("guess-first/figure-3", "tiny", wider, out, show_progress=False)
    assert set((out / "cells").glob("norms-*")) == kept
    standing = cell_of(record, "white-box", model="CNN")["attacks"]["pgd"]["standing"]
    assert standing[1:] == cell_of(table[0], "white-box", model="CNN")["attacks"]["pgd"]["standing"]
    assert standing[0] >= standing[1]


# --- figure 2 ---


@pytest.fixture(scope="module")
def figure_2(out):
    settings = {"models": ["C-JS", "C-JS-IE"], "images": 80, "shown": 60, "blocks": 3, "training.epochs": 8}
    return run_study("guess-first/figure-2", "tiny", settings, out, show_progress=False)


def test_figure_2_runs_on_digits(figure_2, table, out):
    record, html = figure_2
    assert record.complete
    text = unescape(html.read_text("utf-8"))
    assert all(finding.claim in text for finding in record.findings)
    assert len(list((out / "models").glob("digits-c-js-seed0-*"))) == 1, "the model is table 1's"
    for cell in record.cells.values():
        assert len(cell["points"]) == 60
        assert sum(own for _, _, own in cell["points"]) == 6
        assert [of for _, of in cell["own"]] == [8] * 10
        assert len(cell["in_blocks"]) == 10
        assert all(0 <= told <= 80 for told in cell["told"])


def test_its_discrepancies_are_those_of_the_representations(figure_2, out):
    cell = cell_of(figure_2[0], "representations", model="C-JS")
    data = load("digits")
    indices = balanced(data.test.labels)[:80]
    images, labels = as_float(data.test.images[indices]), data.test.labels[indices]
    with torch.no_grad():
        z = model_of(out, "c-js").representations(images)
    for under in (0, 1, 7):
        own = labels == under
        for kind, unbiased in (("biased", False), ("unbiased", True)):
            # the width is the median distance over the images as they stand, which the pooled sample reorders
            first = torch.cat([z[under][own], z[under][~own]])
            spread = torch.pdist(z[under]).median()
            found = float(mmd2(first[: own.sum()], first[own.sum() :], float(spread), unbiased=unbiased))
            assert cell[kind][under] == pytest.approx(found, abs=1e-4)


def test_its_fisher_information_is_that_of_the_prediction(figure_2, out):
    """By the definition, E[∇ log p ∇ log pᵀ], image by image in float64."""
    cell = cell_of(figure_2[0], "representations", model="C-JS")
    data = load("digits")
    images = as_float(data.test.images[balanced(data.test.labels)[:40]]).double()
    model, traces, largest = model_of(out, "c-js").double(), [], []
    for image in images:
        p = model(image[None])[0].detach().softmax(0)
        scores = torch.autograd.functional.jacobian(lambda x: model(x[None])[0].log_softmax(0), image).flatten(1)
        fisher = scores.T @ (p[:, None] * scores)
        traces.append(float(fisher.trace().log()))
        largest.append(float(torch.linalg.eigvalsh(fisher)[-1].log()))
    assert cell["fisher"]["n"] == 40
    for name, logs in (("trace", traces), ("largest", largest)):
        value, low, high = cell["fisher"][name]
        assert value == pytest.approx(sum(logs) / 40, abs=1e-3)
        assert low < value < high


def test_the_probe_tells_what_is_linear_and_no_more():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    noise = torch.randn(400, 6, generator=generator)
    assert (probe(noise, labels) == labels).float().mean() < 0.4
    centres = torch.eye(4, 6)[labels]
    assert (probe(10 * centres + noise, labels) == labels).float().mean() > 0.99
    assert (probe(torch.zeros(400, 3), labels) == labels).float().mean() == pytest.approx(0.25)


def test_a_hypothesis_that_is_no_class_is_told(out):
    settings = {"models": ["C-JS"], "images": 80, "shown": 60, "blocks": 3, "training.epochs": 8, "hypothesis": 10}
    from isthmus.core.errors import ConfigError

    with pytest.raises(ConfigError, match="hypothesis=10 is no class of 10"):
        run_study("guess-first/figure-2", "tiny", settings, out, show_progress=False)
