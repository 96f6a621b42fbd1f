import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks.threats import Linf
from isthmus.checks import Accuracy
from isthmus.checks.context import Context
from isthmus.core import results
from isthmus.core.types import CheckResult, Status
from isthmus.models.modes import AveragedDraws
from isthmus.report.sections import accuracy as page


class Told(nn.Module):
    """Reads its logits off the image."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, images):
        return images.flatten(1) * self.scale


def context(scores, labels, **options):
    images = torch.as_tensor(scores, dtype=torch.float32)[:, :, None, None]
    options = {"model": Told(), "threat": Linf(0.1), "num_classes": images.shape[1]} | options
    return Context(images=images, labels=torch.as_tensor(labels), **options)


@pytest.fixture
def noisy():
    random = np.random.default_rng(0)
    labels = random.integers(4, size=300)
    scores = 0.4 * random.random((300, 4)) + 0.3 * np.eye(4)[labels]
    return scores, labels


def run(ctx, **options):
    return Accuracy(**options).run(ctx)


def test_counts_what_is_right(noisy):
    scores, labels = noisy
    result = run(context(scores, labels))
    correct = scores.argmax(1) == labels
    metric = result.metrics.one("accuracy", mode="mean")
    assert (metric.value, metric.n, metric.interval.method) == (correct.mean(), 300, "Wilson")
    np.testing.assert_array_equal(result.arrays["correct"], correct)
    assert "ties" not in result.metrics.names()
    confusion = result.arrays["confusion"]
    assert confusion.sum() == 300
    np.testing.assert_array_equal(confusion.sum(1), np.bincount(labels))
    np.testing.assert_array_equal(confusion.sum(0), np.bincount(scores.argmax(1), minlength=4))
    recalls = [result.metrics.one("accuracy", mode="mean", **{"class": k}) for k in range(4)]
    assert [recall.value for recall in recalls] == pytest.approx([correct[labels == k].mean() for k in range(4)])
    assert result.status is Status.MEASURED


@pytest.mark.parametrize("answer", [0, 1])
def test_a_constant_answer_fails_also_where_it_is_the_majoritys(answer):
    labels = np.repeat([0, 1, 2], [60, 25, 15])
    result = run(context(np.tile(np.eye(3)[answer], (100, 1)), labels))
    assert result.status is Status.FAIL
    assert result.thresholds["accuracy"] == result.details["chance"] == 0.6


def test_coin_tosses_fail_and_a_single_class_is_judged_against_one_in_c():
    random = np.random.default_rng(1)
    assert run(context(random.random((500, 5)), random.integers(5, size=500))).status is Status.FAIL
    assert run(context(np.tile(np.eye(5)[2], (40, 1)), [2] * 40)).status is Status.MEASURED


def test_both_modes_and_their_difference(noisy):
    scores, labels = noisy
    ctx = context(scores, labels, stochastic=nn.Sequential(Told(), nn.Hardtanh(0, 0.5)))
    result = run(ctx)
    assert result.metrics.select(mode="stochastic").names() == ["accuracy"]
    gain = result.metrics.one("accuracy", mode="stochastic").value - result.metrics.one("accuracy", mode="mean").value
    assert result.metrics.one("stochastic_gain").value == pytest.approx(gain)
    assert "clean accuracy, stochastic" in page.section({"a": result}).columns


def test_batch_size_changes_nothing(noisy):
    one, other = (run(context(*noisy, batch_size=size)) for size in (7, 300))
    assert one.model_dump() == other.model_dump()
    for name in one.arrays:
        np.testing.assert_array_equal(one.arrays[name], other.arrays[name])


def test_a_stored_result_gives_the_same_section(noisy, tmp_path):
    result = run(context(*noisy))
    results.save_result(tmp_path, result)
    loaded = results.load_result(tmp_path, "accuracy")
    assert page.section({"a": loaded}) == page.section({"a": result})


def test_the_section_compares_classifiers_in_words(noisy):
    scores, labels = noisy
    good, perfect = run(context(scores, labels)), run(context(np.eye(4)[labels], labels))
    section = page.section({"good": good, "perfect": perfect})
    figure, table = section.blocks
    assert "perfect has an accuracy of 100.0% on every class" in figure.reading
    assert [series.group for series in figure.series] == ["good", "perfect"]
    confusion = good.arrays["confusion"] - np.diag(good.arrays["confusion"].diagonal())
    (_, wrong, listed), perfectly = table.rows
    assert (wrong, perfectly) == (int(confusion.sum()), ("perfect", 0, "none"))
    assert [int(part.split("(")[1].rstrip(")")) for part in listed.split(", ")] == sorted(confusion.ravel())[:-4:-1]
    assert listed.startswith("2→1 (")
    assert confusion[2, 1] == confusion.max()
    assert section.columns["clean accuracy"]["perfect"].value == 1.0
    assert section.headlines["good"].metric == good.metrics.one("accuracy", mode="mean")
    many = page.section({str(k): good for k in range(4)} | {"perfect": perfect})
    assert many.blocks[0].reading.startswith("perfect has the largest accuracy, 100.0%")


def test_confusions_of_single_images_are_no_pattern():
    labels = torch.arange(40) % 4
    scores = np.eye(4)[labels.numpy()]
    scores[0] = scores[1]
    once = run(context(scores, labels))
    assert once.metrics.one("accuracy", mode="mean").value == 39 / 40
    assert len(page.section({"once": once}).blocks) == 1


def test_nothing_measured_shows_nothing():
    skipped = CheckResult(check="accuracy", status=Status.ERROR, reason="no")
    assert page.section({"a": skipped}).blocks == ()
    assert page.section({}).columns == {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_are_wrong(noisy, value):
    scores, labels = noisy
    scores = scores.copy()
    scores[:30, 1] = value
    result = run(context(scores, labels))
    correct = (scores.argmax(1) == labels)[30:].sum() / 300
    assert result.metrics.one("accuracy", mode="mean").value == pytest.approx(correct)
    assert (result.metrics.one("not_finite", mode="mean").value, result.metrics.one("not_finite", mode="mean").n) == (
        0.1,
        300,
    )
    assert result.status is Status.WARN
    assert "images whose logits are NaN or infinite count as wrong: 30" in result.reason
    assert (result.arrays["predicted"][:30] == -1).all()
    assert result.arrays["confusion"].sum() == 270
    recalls = [result.metrics.one("accuracy", mode="mean", **{"class": k}) for k in range(4)]
    assert [recall.n for recall in recalls] == np.bincount(labels).tolist()
    assert page.section({"a": result}).blocks


def test_the_mode_of_missing_answers_is_named(noisy):
    scores, labels = noisy
    stochastic = nn.Sequential(Told(), nn.Threshold(0.01, np.nan))
    scores = scores.copy()
    scores[:3, 0] = 0.0
    result = run(context(scores, labels, stochastic=stochastic))
    assert result.metrics.get("not_finite", mode="mean") is None
    assert result.metrics.one("not_finite", mode="stochastic").value >= 3 / 300
    assert "in stochastic mode" in result.reason


def test_random_answers_are_mentioned(noisy):
    assert "average 12 draws" in run(context(*noisy, draws=12)).reason
    assert "draws" not in run(context(*noisy)).reason


def test_a_random_classifier_counts_by_its_average_over_many_draws():
    """Logits lead by 0.5 under noise of deviation 4: any twelve draws often err, their distribution does not."""

    class Shaken(nn.Module):
        def forward(self, images):
            return torch.tensor([0.5, 0.0]) + 4 * torch.randn(len(images), 2)

    images, labels = torch.rand(60, 1, 2, 2), torch.zeros(60, dtype=torch.int64)
    labels[:2] = 1  # so that no constant answer is right
    judged = Context(AveragedDraws(Shaken(), 12).eval(), images, labels, 2, Linf(0.1), draws=12, batch_size=25)
    right = run(judged).arrays["correct"]
    assert right[2:].mean() > 0.85
    assert not right[:2].any()
    assert (judged.logits.argmax(1)[2:] == 0).float().mean() < right[2:].mean()


def test_ties_of_the_two_largest_logits_are_warned_of(noisy):
    scores, labels = noisy
    scores[:7, 2:] = 1.0
    result = run(context(scores, labels))
    assert result.status is Status.WARN
    assert result.metrics.one("ties", mode="mean").value == pytest.approx(7 / 300)
    assert "7 images are equal" in result.reason
