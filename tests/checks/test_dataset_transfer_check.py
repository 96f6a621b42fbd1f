"""Transfer: what is judged and by which labels, copies that leave the model alone, margins, the page."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import isthmus
from isthmus import metrics
from isthmus.attacks.threats import Linf
from isthmus.checks.adaptation import Adaptation, adapt, obstacle, one_of_each, rotated
from isthmus.checks.context import Context
from isthmus.core import results
from isthmus.core.config import component
from isthmus.core.errors import ConfigError, DataError, ModelError
from isthmus.core.types import CheckResult, Status
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.report.sections import dataset_transfer as page
from tests.checks.metric_helpers import plain
from tests.checks.test_robustness_check import Noisy
from tests.checks.test_shift_check import folder, names


def linear(seed=0, features=64):
    """Ten random linear classes, with parameters that are frozen, as an audit freezes them."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 10)).requires_grad_(False)


def context(model=None, n=60, shape=(1, 8, 8), **options):
    images = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))
    return Context(model or linear(), images, torch.arange(n) % 10, 10, Linf(0.1), **options)


def run(ctx, data="digits", **options):
    given = {"name": "dataset_transfer", "data": data, "resamples": 100, "draws": 2} | options
    return component("checks", given).run(ctx)


def digits(result):
    """Images and labels of what was judged."""
    test = load("digits").test.select(torch.from_numpy(result.arrays["transfer_index"]))
    return as_float(test.images), test.labels


# --- zero-shot ---


def test_what_is_judged_is_the_other_data():
    ctx = context()
    result = run(ctx, draws=0)
    images, labels = digits(result)
    assert len(labels) == 60
    logits = ctx.model(images)
    right = (logits.argmax(1) == labels).numpy()
    np.testing.assert_array_equal(result.arrays["zero_shot_correct"], right)
    ordered = logits.double().softmax(1).sort(1).values
    np.testing.assert_allclose(result.arrays["zero_shot_margin"], ordered[:, -1] - ordered[:, -2], atol=1e-6)
    assert plain(result.metrics.one("accuracy", mode="mean", shots=0)) == metrics.accuracy(right)
    assert result.metrics.one("margin", mode="mean", shots=0).value == pytest.approx(
        (ordered[:, -1] - ordered[:, -2]).mean().item()
    )
    assert not result.metrics.select(shots=1)
    counts = np.bincount(labels.numpy())
    assert counts.max() - counts.min() <= 1
    few, many = run(ctx, images=10, draws=0), run(ctx, images=300, draws=0)
    np.testing.assert_array_equal(many.arrays["transfer_index"][:10], few.arrays["transfer_index"])
    assert many.metrics.one("accuracy", mode="mean", shots=0).n == 300


class Reads(nn.Module):
    """Knows the answer: ten times the grey value of the middle."""

    def forward(self, images):
        size = images.shape[-1] // 2
        return 30 * nn.functional.one_hot((images.mean(1)[:, size, size] * 255).round().long() % 10, 10).float()


def test_labels_are_matched_by_name_and_images_converted(tmp_path):
    given = folder(tmp_path / "mine", {name: number for number, name in enumerate(names())})
    ctx = context(Reads(), n=20, shape=(3, 12, 12))
    result = run(ctx, given, classes=names(), draws=0)
    assert result.metrics.one("accuracy", mode="mean", shots=0).value == 1.0
    assert run(ctx, given, classes=names()[::-1], draws=0).metrics.one("accuracy", mode="mean", shots=0).value == 0.0
    assert (
        "resampled from 8×8 to 12×12 pixels and given their grey value in all three channels"
        in (result.details["notice"])
    )
    assert result.details["notice"] in page.section({"a": result}).blocks[-1].reading
    assert result.status is Status.PASS
    assert result.metrics.one("margin_error", mode="mean", shots=0).value == pytest.approx(0, abs=1e-6)


def test_what_does_not_fit_is_said(tmp_path):
    given = folder(tmp_path / "mine", dict(zip(names()[:3], range(3), strict=True)))
    with pytest.raises(DataError, match=r"has 3 classes, and the classifier 10"):
        run(context(), given)
    with pytest.raises(DataError, match=r"names 3 classes, and the classifier has 10"):
        run(context(), given, classes=names()[:3])
    with pytest.raises(DataError, match=r"only grey and RGB are converted into each other\. Name data"):
        run(context(linear(features=128), shape=(2, 8, 8)))
    with pytest.raises(ConfigError, match="Did you mean 'digits'"):
        run(context(), "digit")
    with pytest.raises(ConfigError, match="data: Field required"):
        component("checks", "dataset_transfer")
    assert component("checks", "dataset_transfer:digits").data.name == "digits"


class Sure(nn.Module):
    """Right on every second image of the folder at least, and always sure."""

    def forward(self, images):
        value = (images.mean((1, 2, 3)) * 255).round().long()
        return 30 * nn.functional.one_hot(torch.where(value % 2 == 0, value, 0), 10).float()


def test_margins_that_are_off_raise_a_warning(tmp_path):
    given = folder(tmp_path / "mine", {name: number for number, name in enumerate(names())})
    result = run(context(Sure(), n=20), given, classes=names(), draws=0)
    assert result.metrics.one("accuracy", mode="mean", shots=0).value == 0.5
    assert result.metrics.one("overconfidence", mode="mean", shots=0).value == pytest.approx(0.5)
    assert result.status is Status.WARN
    assert "calibration error of the margin is 50.0%" in result.reason


def test_chance_raises_a_warning():
    result = run(context(linear(seed=3), n=40), draws=0)
    assert result.status is Status.WARN
    assert "not shown to be above the 10.0%" in result.reason


class Gaps(nn.Module):
    """No answer to dark images, or to any."""

    def __init__(self, least):
        super().__init__()
        self.model, self.least = linear(), least

    def forward(self, images):
        return torch.where(images.mean((1, 2, 3))[:, None] < self.least, torch.nan, self.model(images))


def test_answers_that_are_not_finite_are_wrong_and_have_no_margin():
    result = run(context(Gaps(0.3)), draws=1)
    images, _ = digits(result)
    dark = (images.mean((1, 2, 3)) < 0.3).numpy()
    assert 0 < dark.sum() < 60
    np.testing.assert_array_equal(np.isnan(result.arrays["zero_shot_margin"]), dark)
    assert not result.arrays["zero_shot_correct"][dark].any()
    assert result.metrics.one("margin", mode="mean", shots=0).n == (~dark).sum()
    assert f"count as wrong and have no margin: {dark.sum()} in mean mode and {dark.sum()} in one-shot mode" in (
        result.reason
    )
    with pytest.raises(ModelError, match="no image of digits has finite logits"):
        run(context(Gaps(2.0)))


# --- one-shot ---


def test_a_copy_takes_the_steps_of_plain_descent_and_the_model_none():
    ctx = context()
    before = copy.deepcopy(ctx.model.state_dict())
    config = Adaptation(draws=1, steps=10, learning_rate=0.1, degrees=0)
    train = load("digits").train
    chosen = one_of_each(train.labels, 0, 0)
    images, labels = as_float(train.images[chosen]), train.labels[chosen]
    np.testing.assert_array_equal(labels, np.arange(10))
    twin = adapt(ctx, images, labels, 0, config)
    weight, bias = ctx.model[1].weight.double(), ctx.model[1].bias.double()
    flat, target = images.flatten(1).double(), nn.functional.one_hot(labels, 10).double()
    for _ in range(10):
        error = ((flat @ weight.T + bias).softmax(1) - target) / 10
        weight, bias = weight - 0.1 * error.T @ flat, bias - 0.1 * error.sum(0)
    torch.testing.assert_close(twin[1].weight.double(), weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(twin[1].bias.double(), bias, atol=1e-5, rtol=0)
    for name, value in ctx.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and not p.requires_grad for p in ctx.model.parameters())


def test_one_shot_numbers_are_those_of_the_copies():
    ctx = context(n=200)
    result = run(ctx, draws=3, learning_rate=0.3)
    images, labels = digits(result)
    train, config = load("digits").train, Adaptation(draws=3, steps=10, learning_rate=0.3, degrees=10.0)
    rights = []
    for draw, chosen in enumerate(result.arrays["one_shot_examples"]):
        chosen = torch.from_numpy(chosen)
        np.testing.assert_array_equal(train.labels[chosen], np.arange(10))
        twin = adapt(ctx, as_float(train.images[chosen]), train.labels[chosen], draw, config)
        rights.append((twin(images).argmax(1) == labels).numpy())
    np.testing.assert_array_equal(result.arrays["one_shot_correct"], rights)
    assert len({row.tobytes() for row in result.arrays["one_shot_examples"]}) == 3
    found = result.metrics
    assert found.one("accuracy", mode="mean", shots=1).value == pytest.approx(np.mean(rights))
    assert found.one("gain", mode="mean", shots=1).value == pytest.approx(
        np.mean(rights) - found.one("accuracy", mode="mean", shots=0).value
    )
    assert (
        found.one("gain", mode="mean", shots=1).interval.low > 0.1
    )  # random classes before, examples of the right ones after
    assert "after one example of each class" in result.reason


def test_copies_that_are_all_wrong_leave_room_for_doubt(tmp_path):
    """Nothing varies, and yet twenty images do not show that it never will."""
    given = folder(tmp_path / "mine", {name: 20 * number for number, name in enumerate(names())})
    ctx = context(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False), n=20)
    with torch.no_grad():
        ctx.model[1].weight.zero_()
        ctx.model[1].bias.copy_(torch.arange(10) * 10.0)
    result = run(ctx, given, classes=names(), steps=1, learning_rate=1e-6)
    found = result.metrics.one("accuracy", mode="mean", shots=1)
    assert found.value == pytest.approx(0.1)
    assert found.interval.low <= metrics.wilson(2, 20).low
    gain = result.metrics.one("gain", mode="mean", shots=1)
    assert gain.value == 0
    assert gain.interval.low < -0.05 < 0.05 < gain.interval.high


def test_rotation_is_pillows():
    image = torch.zeros(1, 1, 21, 31)
    image[..., 4:9, 10:22] = torch.linspace(0.2, 1, 12)
    turned = rotated(image.expand(2, -1, -1, -1), torch.tensor([10.0, 0.0]))
    torch.testing.assert_close(turned[1], image[0], atol=1e-5, rtol=0)
    pillow = Image.fromarray(image[0, 0].numpy()).rotate(10, Image.Resampling.BILINEAR)
    np.testing.assert_allclose(turned[0, 0], np.asarray(pillow), atol=0.02)
    bright = rotated(torch.full((1, 3, 9, 9), 0.7), torch.tensor([10.0]))
    torch.testing.assert_close(bright, torch.full((1, 3, 9, 9), 0.7))  # no black corners


def test_batches_and_the_noise_of_a_mode_change_nothing():
    noisy = [context(stochastic=Noisy10(linear()), batch_size=size) for size in (60, 7)]
    one, other = (run(ctx) for ctx in noisy)
    for name in one.arrays:
        np.testing.assert_allclose(one.arrays[name], other.arrays[name], atol=1e-5, err_msg=name)
    found = [(metric.coords["mode"], metric.coords["shots"]) for metric in one.metrics.select("accuracy")]
    assert found == [("mean", 0), ("stochastic", 0), ("mean", 1)]
    table = page.section({"m": one}).blocks[-1]
    assert [row[0] for row in table.rows] == ["m", "m (stochastic)"]


class Noisy10(Noisy):
    """Ten classes with noise from keys."""

    def forward(self, images, keys=None):
        from isthmus.core import randomness

        noise = randomness.normal(keys, (4, 10)) * self.scale
        return (self.model(images).unsqueeze(1) + noise).log_softmax(-1).logsumexp(1)


class Stubborn(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = linear()

    def __deepcopy__(self, memo):
        raise TypeError("not this one")

    def forward(self, images):
        return self.model(images)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model": Reads()}, "do not depend on trainable parameters"),
        ({"model": Stubborn()}, "cannot be copied (not this one)"),
        ({"draws": 12}, "predictions are random"),
    ],
    ids=["nothing to fit", "no copy", "random"],
)
def test_what_cannot_be_adapted_is_judged_as_it_is(options, why):
    result = run(context(**options))
    assert why in result.details["not_adapted"]
    assert why in result.reason
    assert {metric.coords["shots"] for metric in result.metrics} == {0}
    assert why in page.section({"a": result}).blocks[-1].reading


def test_a_bottleneck_is_adapted_by_its_own_loss(monkeypatch):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    model = isthmus.bottleneck(backbone, 10, "ceb", 4, features=16).eval().requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    asked = []
    own = type(model).loss

    def told(self, images, labels, rho=None, noise=None):
        asked.append((self is model, len(labels)))
        return own(self, images, labels, rho, noise)

    monkeypatch.setattr(type(model), "loss", told)
    ctx = context(model)
    first, second = run(ctx, draws=1), run(ctx, draws=1)
    assert asked == [(False, 10)] * 20
    np.testing.assert_array_equal(first.arrays["one_shot_margin"], second.arrays["one_shot_margin"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert obstacle(ctx) == ""


# --- the page ---


def test_the_page_is_drawn_from_what_is_stored(tmp_path):
    result = run(context(n=200), learning_rate=0.3)
    results.save_result(tmp_path, result)
    loaded = results.load_result(tmp_path, "dataset_transfer")
    section = page.section({"a": loaded})
    assert section == page.section({"a": result})
    titles = [block.title for block in section.blocks]
    assert titles == [
        "Margins on digits, zero-shot",
        "Accuracy over the margin on digits, zero-shot",
        "Margins on digits, one-shot",
        "Accuracy over the margin on digits, one-shot",
        "Transfer to digits",
    ]
    bars, over = section.blocks[:2]
    assert sum(bars.series[0].y) == pytest.approx(1)
    assert [mark.name for mark in bars.marks] == ["accuracy", "mean margin"]
    assert over.identity
    assert all(
        low <= y <= high for low, y, high in zip(over.series[0].low, over.series[0].y, over.series[0].high, strict=True)
    )
    assert list(section.columns) == ["zero-shot accuracy on digits", "one-shot accuracy on digits"]
    table = section.blocks[-1]
    assert len(table.columns) == len(table.rows[0])
    assert "means over 2 copies" in table.reading
    two = page.section({"a": result, "b": run(context(n=200), draws=0)})
    assert [series.group for series in two.blocks[0].series] == ["a", "b"]
    assert two.blocks[0].marks == ()
    assert [series.group for series in two.blocks[2].series] == ["a"]


def test_progress_only_moves_forward():
    seen = []
    run(context(batch_size=25, progress=lambda done, total: seen.append(done / total)))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_nothing_measured_shows_nothing():
    failed = CheckResult(check="dataset_transfer", status=Status.ERROR, reason="no")
    assert page.section({"a": failed}).blocks == ()
