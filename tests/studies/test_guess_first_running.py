"""The studies of Guess First the whole way at tiny scale, on digits, and their numbers by hand."""

from dataclasses import replace
from html import unescape

import pytest
import torch
from torch.nn.functional import cross_entropy

from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.foolbox_protocol import scan_fgsm
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.checks import diagnosis
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import example_keys
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.information.mmd import mmd2
from isthmus.studies.guess_first.representations import probe
from isthmus.studies.guess_first.transfer_attacks import rescaled
from isthmus.studies.running import run_study
from isthmus.training.run import load as load_run

SETTINGS = {"models": ["CNN", "C-JS"], "images": 20, "battery_images": 20, "training.epochs": 8}
CW = {"name": "cw", "steps": 20, "binary_search_steps": 3, "learning_rate": 5e-2}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("guess_first")


@pytest.fixture(scope="module")
def table(out):
    """Its verdicts spend few passes, so they are undecided."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, "QUICK", replace(diagnosis.QUICK, passes=120))
        return run_study("guess-first/table-1", "tiny", SETTINGS, out, show_progress=False)


@pytest.fixture(scope="module")
def judged():
    data = load("digits")
    indices = balanced(data.test.labels)[:20]
    return as_float(data.test.images[indices]), data.test.labels[indices], indices


def model_of(out, name):
    return load_run(next((out / "models").glob(f"digits-{name}-seed0-*")))


def counts(record, name="robust_accuracy", **where):
    """Numbers of images behind the rows of a fraction, in order of measurement."""
    return [round(row.value * row.n) for row in record.rows().select(name, where)]


def right(model, images, labels):
    with torch.no_grad():
        return model(images).argmax(1) == labels


def test_a_table_runs_on_digits(table):
    record, html = table
    assert record.complete
    assert not record.failures
    assert len(record.experiments) == 2 + 1 + 2 + 2
    assert record.departures["data"] == ("digits", "mnist")
    text = unescape(html.read_text("utf-8"))
    assert all(each.claim in text for each in record.claims)
    for name in ("CNN", "C-JS"):
        for attack in ("fgsm", "pgd", "cw"):
            clean, near, far = counts(record, access="white", attack=attack, model=name)
            (never,) = counts(record, "never_broken", attack=attack, model=name)
            assert clean > 2
            assert clean >= near >= far >= never >= 0
        (reported,), (corrected,) = (
            counts(record, f"{kind}_accuracy", model=name) for kind in ("reported", "corrected")
        )
        assert corrected <= reported <= clean
        assert "one_step" in record.experiments[f"{name}, seed 0, verdict"].details["diagnosis"]["tests"]


def test_images_of_fgsm_and_pgd_are_those_of_the_formulas(table, out, judged):
    """By autograd, without the attacks of the library: on the substitute, then shown to a model."""
    images, labels, indices = judged
    substitute, victim = model_of(out, "substitute"), model_of(out, "c-js")

    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(cross_entropy(substitute(x), labels, reduction="sum"), x)[0]

    clean = right(victim, images, labels)
    fgsm, pgd = (counts(table[0], access="black", attack=attack, model="C-JS") for attack in ("fgsm", "pgd"))
    assert fgsm[0] == pgd[0] == int(clean.sum())
    for at, eps in enumerate((0.15, 0.3), 1):
        moved = (images + eps * gradient(images).sign()).clamp(0, 1)
        assert fgsm[at] == int((clean & right(victim, moved, labels)).sum())
        x = Linf(eps).random_start(images, example_keys(0, indices))
        assert (x != images).any()
        for _ in range(40):
            x = x + eps / 30 * gradient(x).sign()
            x = (images + (x - images).clamp(-eps, eps)).clamp(0, 1)
        assert pgd[at] == int((clean & right(victim, x, labels)).sum())


def test_images_of_cw_are_scaled_and_clipped(table, out, judged):
    images, labels, indices = judged
    substitute, victim = model_of(out, "substitute"), model_of(out, "cnn")
    norms = minimal_norms(substitute, images, labels, "l2", [CW], options=RunOptions(indices=indices))
    delta = norms.adversarial - images
    moved = delta.flatten(1).norm(dim=1) > 0
    assert counts(table[0], "moved", attack="cw") == [int(moved.sum())]
    clean = right(victim, images, labels)
    found = counts(table[0], access="black", attack="cw", model="CNN")
    for at, eps in enumerate((1.0, 2.0), 1):
        length = delta.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        shown = (images + eps * delta / length).clamp(0, 1)
        assert found[at] == int((clean & right(victim, shown, labels)).sum())


def test_rescaling_keeps_the_direction_and_the_box():
    images = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.5]]).view(3, 1, 1, 2)
    deltas = torch.tensor([[0.03, 0.04], [0.0, 0.0], [0.3, 0.4]]).view(3, 1, 1, 2)
    found = rescaled(images, deltas, 0.25).view(3, 2)
    assert torch.allclose(found, torch.tensor([[0.65, 0.7], [0.5, 0.5], [1.0, 0.7]]))


def test_norms_and_the_ensemble_are_those_of_the_attacks_by_hand(table, out, judged):
    images, labels, indices = judged
    model, record = model_of(out, "cnn"), table[0]
    white = {
        attack: counts(record, access="white", attack=attack, model="CNN") for attack in ("fgsm", "cw", "ensemble")
    }
    cw = minimal_norms(model, images, labels, "l2", [CW], options=RunOptions(indices=indices))
    assert white["cw"][1:] == [round(20 * cw.accuracy(eps)) for eps in (1.0, 2.0)]
    fgsm = scan_fgsm(model, images, labels, options=RunOptions(indices=indices)).sizes
    assert white["fgsm"][1:] == [int((fgsm > eps + 1e-6).sum()) for eps in (0.15, 0.3)]
    assert counts(record, "never_broken", attack="fgsm", model="CNN") == [int(fgsm.isinf().sum())]
    result = robust_accuracy(model, images, labels, "linf:0.15", "pgd", options=RunOptions(indices=indices))
    near, far, _ = white["ensemble"]  # at ℓ∞ 0.15 and 0.3, and at ℓ2 2
    assert far <= near == int(result.robust.sum())


def test_figure_3_takes_over_all_that_table_1_measured(table, out):
    before = {
        path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.parent.name in ("models", "experiments")
    }
    settings = {key: value for key, value in SETTINGS.items() if key != "battery_images"}
    record, html = run_study("guess-first/figure-3", "tiny", settings, out, show_progress=False)
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.parent.name in ("models", "experiments")}
    assert after == before
    shared = [name for name in table[0].experiments if "white-box" in name or "black-box" in name]
    assert list(record.experiments) == shared
    assert all(record.experiments[name] == table[0].experiments[name] for name in shared)
    assert html.read_text("utf-8").count("<svg") >= 6


def test_another_grid_needs_no_further_white_box_attack(table, out):
    kept = set((out / "experiments").glob("norms-*"))
    settings = {key: value for key, value in SETTINGS.items() if key != "battery_images"}
    wider = {**settings, "linf": [0.1, 0.15, 0.3], "models": ["CNN"]}
    record, _ = run_study("guess-first/figure-3", "tiny", wider, out, show_progress=False)
    assert set((out / "experiments").glob("norms-*")) == kept
    clean, smaller, *rest = counts(record, access="white", attack="pgd", model="CNN")
    assert [clean, *rest] == counts(table[0], access="white", attack="pgd", model="CNN")
    assert smaller >= rest[0]


# --- figure 2 ---


@pytest.fixture(scope="module")
def figure_2(out):
    settings = {"models": ["C-JS", "C-JS-IE"], "images": 80, "shown": 60, "blocks": 3, "training.epochs": 8}
    return run_study("guess-first/figure-2", "tiny", settings, out, show_progress=False)


def test_figure_2_runs_on_digits(figure_2, table, out):
    record, html = figure_2
    assert record.complete
    text = unescape(html.read_text("utf-8"))
    assert all(each.claim in text for each in record.claims)
    assert len(list((out / "models").glob("digits-c-js-seed0-*"))) == 1, "the model is table 1's"
    for model, found in zip(("C-JS", "C-JS-IE"), record.experiments.values(), strict=True):
        (groups,) = found.details["points"].values()
        assert {label: len(points) for label, points in groups.items()} == {"label is 1": 6, "other labels": 54}
        assert [row.n for row in record.rows().select("own_class_recall", {"model": model})] == [8] * 10
        discrepancies = record.rows().select("mmd2", {"model": model})
        assert len(discrepancies) == 10
        assert all(row.interval.low < row.value < row.interval.high for row in discrepancies)
        (total,) = record.rows().select("mmd2_sum", {"model": model})
        assert total.value == pytest.approx(sum(row.value for row in discrepancies))


def test_its_discrepancies_are_those_of_the_representations(figure_2, out):
    data = load("digits")
    indices = balanced(data.test.labels)[:80]
    images, labels = as_float(data.test.images[indices]), data.test.labels[indices]
    with torch.no_grad():
        z = model_of(out, "c-js").representations(images)
    for under in (0, 1, 7):
        own = labels == under
        for name, unbiased in (("mmd2_biased", False), ("mmd2", True)):
            # the width is the median distance over the images in their order, which the pooled sample changes
            spread = torch.pdist(z[under]).median()
            found = float(mmd2(z[under][own], z[under][~own], float(spread), unbiased=unbiased))
            (row,) = figure_2[0].rows().select(name, {"model": "C-JS", "hypothesis": under})
            assert row.value == pytest.approx(found, abs=1e-4)


def test_its_fisher_information_is_that_of_the_prediction(figure_2, out):
    """By the definition, E[∇ log p ∇ log pᵀ], image by image in float64."""
    data = load("digits")
    images = as_float(data.test.images[balanced(data.test.labels)[:40]]).double()
    model, logs = model_of(out, "c-js").double(), {"trace": [], "largest": []}
    for image in images:
        p = model(image[None])[0].detach().softmax(0)
        scores = torch.autograd.functional.jacobian(lambda x: model(x[None])[0].log_softmax(0), image).flatten(1)
        fisher = scores.T @ (p[:, None] * scores)
        logs["trace"].append(float(fisher.trace().log()))
        logs["largest"].append(float(torch.linalg.eigvalsh(fisher)[-1].log()))
    for name, values in logs.items():
        (row,) = figure_2[0].rows().select(f"log_fisher_{name}", {"model": "C-JS"})
        assert row.n == 40
        assert row.value == pytest.approx(sum(values) / 40, abs=1e-3)
        assert row.interval.low < row.value < row.interval.high


def test_the_probe_predicts_what_is_linear_and_no_more():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    noise = torch.randn(400, 6, generator=generator)
    assert (probe(noise, labels) == labels).float().mean() < 0.4
    centres = torch.eye(4, 6)[labels]
    assert (probe(10 * centres + noise, labels) == labels).float().mean() > 0.99
    assert (probe(torch.zeros(400, 3), labels) == labels).float().mean() == pytest.approx(0.25)


def test_a_hypothesis_that_is_no_class_is_refused(out):
    settings = {"models": ["C-JS"], "images": 80, "shown": 60, "blocks": 3, "training.epochs": 8, "hypothesis": 10}
    with pytest.raises(ConfigError, match="hypothesis=10 is no class of 10"):
        run_study("guess-first/figure-2", "tiny", settings, out, show_progress=False)
