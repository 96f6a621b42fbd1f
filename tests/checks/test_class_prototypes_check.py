"""The reverse channel: closed forms of linear models, who gets there and who does not, what the page shows."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks.threats import Linf
from isthmus.checks.class_prototypes import Population
from isthmus.checks.context import Context
from isthmus.core import results
from isthmus.core.config import component
from isthmus.core.display import Gallery
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.types import CheckResult, Status
from isthmus.report.sections import class_prototypes as page
from tests.attacks.attacked_models import Counting
from tests.checks.test_robustness_check import Linear, Noisy, Staircase, linear_context

WEIGHT = 3 * torch.linspace(-1, 1, 12)


def run(ctx, **options):
    return component("checks", {"name": "class_prototypes"} | options).run(ctx)


def linear(n=60, **options):
    return linear_context(Linear(WEIGHT), n=n, **options)


def test_a_linear_classifier_has_its_closed_form():
    """The margin grows by 2‖w‖ times the step; the prototype is the start moved along w."""
    ctx = linear()
    result = run(ctx, step_size=0.02)
    prototypes, steps = result.arrays["prototypes"], result.arrays["prototype_steps"]
    np.testing.assert_array_equal(result.arrays["prototype_class"], [0, 1])
    needed = math.log(0.9995 / 0.0005)
    for image, taken, sign in zip(prototypes, steps, (-1, 1), strict=True):
        direction = (sign * WEIGHT / WEIGHT.norm()).numpy()
        start = image.ravel() - 0.02 * taken * direction
        mean = np.repeat(ctx.images.mean((0, 2, 3)).numpy(), 4)
        std = np.repeat(ctx.images.transpose(0, 1).flatten(1).std(1, correction=0).numpy(), 4)
        assert (np.abs(start - mean) < 4.5 * 0.01 * std).all()
        assert np.abs(start - mean).max() > 0
        before = 2 * sign * float((start - 0.5) @ WEIGHT.numpy())
        assert taken == math.ceil((needed - before) / (0.02 * 2 * float(WEIGHT.norm())))
    assert result.metrics.one("steps", mode="mean").value == steps.mean()
    assert result.metrics.one("reached", mode="mean").value == 1.0
    assert (result.arrays["prototype_confidence"] >= 0.9995).all()
    assert result.status is Status.MEASURED


def test_measures_are_of_the_images_around_their_mean():
    ctx = linear()
    result = run(ctx)
    images = ctx.images.double().numpy()
    mean = images.mean((0, 2, 3))[:, None, None]
    away = (result.arrays["prototypes"] - mean).reshape(2, -1)
    found = {metric.name: metric.value for metric in result.metrics}
    assert found["distance"] == pytest.approx(np.linalg.norm(away, axis=1).mean())
    usual = np.linalg.norm((images - mean).reshape(60, -1), axis=1).mean()
    assert found["relative_distance"] == pytest.approx(found["distance"] / usual)
    truth = ctx.labels.numpy()
    means = np.array([(images - mean)[truth == label].mean(0).ravel() for label in (0, 1)])
    cosines = (away * means).sum(1) / np.linalg.norm(away, axis=1) / np.linalg.norm(means, axis=1)
    assert found["similarity"] == pytest.approx(cosines.mean())
    assert found["similarity"] > 0.5 > found["image_similarity"]
    np.testing.assert_allclose(result.arrays["class_means"] - mean, means.reshape(2, 3, 2, 2), atol=1e-6)


def test_an_image_is_not_compared_with_itself():
    centred = np.array([[1.0, 0], [0, 1], [0, -3], [5, 5]])
    images = centred[:, None, None, :] - centred.mean()
    population = Population.of(images, np.array([0, 0, 1, 2]))
    moved = images.reshape(4, 2) - images.mean()
    first, second = moved[:2]
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    np.testing.assert_allclose(population.similarities(), [expected, expected])  # the others are alone in their class


class Blind(nn.Module):
    """Three classes, the last of which no image reaches."""

    def forward(self, images):
        score = (images - 0.5).flatten(1) @ WEIGHT
        return torch.stack([-score, score, 0 * score - 30], dim=1)


def test_who_does_not_get_there_is_named():
    ctx = linear()
    result = run(Context(Blind(), ctx.images, ctx.labels, 3, Linf(0.1)), steps=150)
    assert result.arrays["prototype_steps"].tolist()[2] == -1
    assert result.metrics.one("reached", mode="mean").value == pytest.approx(2 / 3)
    assert result.metrics.one("steps", mode="mean").n == 2
    assert result.status is Status.MEASURED
    assert result.reason.startswith("2 of 3 prototypes")
    assert "150 steps are not enough in mean mode for 2." in result.reason
    assert np.isnan(result.arrays["class_means"][2]).all()
    gallery = page.section({"a": result}).blocks[0]
    captions = [picture.caption for _, pictures in gallery.rows for picture in pictures]
    assert any("class 2" in caption and "not reached" in caption for caption in captions)


def test_without_gradient_nothing_grows():
    ctx = linear()
    still = run(Context(Staircase(Linear(WEIGHT)), ctx.images, ctx.labels, 2, Linf(0.1)), steps=5)
    assert still.status is Status.MEASURED
    assert still.metrics.one("similarity", mode="mean").value is None
    assert still.metrics.one("steps", mode="mean").note == "none to measure"
    assert page.section({"a": still}).blocks

    class Detached(Linear):
        def forward(self, images):
            return super().forward(images.detach())

    with pytest.raises(ModelError, match="no gradient"):
        run(Context(Detached(WEIGHT), ctx.images, ctx.labels, 2, Linf(0.1)))


class Fading(Linear):
    """No answer once an image has left the box."""

    def forward(self, images):
        far = ((images - 0.5).abs().flatten(1).amax(1, keepdim=True)) > 0.5
        return torch.where(far, torch.nan, super().forward(images))


def test_an_answer_that_is_lost_on_the_way_is_no_confidence():
    result = run(linear_context(Fading(0.1 * WEIGHT), n=60), steps=200)
    assert np.isnan(result.arrays["prototype_confidence"]).all()
    assert result.metrics.one("reached", mode="mean").value == 0
    assert result.status is Status.MEASURED
    assert page.section({"a": result}).blocks


def test_who_is_there_asks_for_nothing_more():
    ctx = linear()
    counting = Counting(Linear(WEIGHT))
    result = run(Context(counting, ctx.images, ctx.labels, 2, Linf(0.1)))
    assert [counting.forwards, counting.backwards] == result.details["passes"]["mean"]
    taken = result.arrays["prototype_steps"]
    assert counting.forwards == (taken + 1).sum()


def test_more_prototypes_and_other_batches_leave_the_first_as_they_are():
    ctx = linear(stochastic=Noisy(Linear(WEIGHT)))
    few = run(ctx)
    more = run(linear(stochastic=Noisy(Linear(WEIGHT)), batch_size=3), each=3)
    assert more.metrics.one("reached", mode="mean").n == 6
    for name in ("prototypes", "stochastic_prototypes"):
        np.testing.assert_allclose(more.arrays[name][:2], few.arrays[name], atol=1e-6)
        assert len({image.tobytes() for image in more.arrays[name]}) == 6
    one = run(ctx, classes=[1])
    np.testing.assert_allclose(one.arrays["prototypes"], few.arrays["prototypes"][1:], atol=1e-6)
    other = run(linear(seed=1))
    assert (other.arrays["prototypes"] != few.arrays["prototypes"]).any()
    table = page.section({"ceb": few}).blocks[-1]
    assert [row[0] for row in table.rows] == ["ceb", "ceb (stochastic)"]


def test_a_class_that_is_not_there():
    with pytest.raises(ConfigError, match=r"classes 0 to 1; there is no class 2"):
        run(linear(), classes=[0, 2])


def test_the_page_shows_what_is_stored(tmp_path):
    result = run(linear_context(Linear(0.5 * WEIGHT), n=60), each=12)
    results.save_result(tmp_path, result)
    loaded = results.load_result(tmp_path, "class_prototypes")
    before, after = (page.section({"a": one}) for one in (result, loaded))
    assert after.columns == before.columns
    assert after.blocks[-1] == before.blocks[-1]
    gallery = after.blocks[0]
    assert isinstance(gallery, Gallery)
    labels = [label for label, _ in gallery.rows]
    assert labels == ["prototypes", "enlarged", "means"]
    assert [len(pictures) for _, pictures in gallery.rows] == [20, 20, 20]  # of 24
    for (_, one), (_, other) in zip(before.blocks[0].rows, gallery.rows, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.caption == b.caption
            np.testing.assert_array_equal(a.image, b.image)
    picture, enlarged = gallery.rows[0][1][0], gallery.rows[1][1][0]
    assert picture.image.shape == (2, 2, 3)
    assert picture.image.dtype == np.uint8
    expected = np.rint(255 * result.arrays["prototypes"][0].clip(0, 1)).transpose(1, 2, 0)
    np.testing.assert_array_equal(picture.image, expected)
    assert enlarged.image.min() == 0 or enlarged.image.max() == 255
    assert "outside [0, 1]" in gallery.reading
    two = page.section({"a": result, "b": loaded})
    assert [block.title for block in two.blocks] == ["Prototypes: a", "Prototypes: b", "From label to image"]
    assert set(two.headlines) == {"a", "b"}


def test_nothing_measured_shows_nothing():
    failed = CheckResult(check="class_prototypes", status=Status.ERROR, reason="no")
    assert page.section({"a": failed}).blocks == ()
