"""The detection check on classifiers and channels whose scores are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import isthmus
from isthmus import metrics
from isthmus.attacks.threats import Linf
from isthmus.audits.classifier import adopt
from isthmus.checks.context import Context
from isthmus.checks.ood_scores import Score, Scorer, unavailable
from isthmus.checks.other_data import adapted
from isthmus.core import results
from isthmus.core.config import component
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.types import Status
from isthmus.report.sections import ood_detection as page


class Halves(nn.Module):
    """Class 0 where the upper half is brighter, class 1 where the lower one is; ``blind`` gives a constant."""

    def __init__(self, gain=40.0, blind=False):
        super().__init__()
        self.gain, self.blind = gain, blind

    def forward(self, images):
        upper, lower = (half.flatten(1).mean(1) for half in images.chunk(2, dim=-2))
        return self.gain * torch.stack([upper, lower], 1) * (0 if self.blind else 1)


def halves(n=60, channels=1, size=8, seed=0):
    """Images with a bright half and a dark one, and which: 0 for the upper."""
    labels = torch.arange(n) % 2
    images = 0.2 * torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))
    images[labels == 0, :, : size // 2] += 0.8
    images[labels == 1, :, size // 2 :] += 0.8
    return images, labels


def context(model=None, images=None, labels=None, **options):
    given = halves()
    images, labels = (given[0] if images is None else images), (given[1] if labels is None else labels)
    adopted = adopt(model or Halves(), images)
    return Context(
        adopted.model,
        images,
        labels,
        adopted.num_classes,
        Linf(0.1),
        adopted.stochastic,
        adopted.bottleneck,
        adopted.draws,
        **options,
    )


def run(ctx, *outs, **options):
    options = {"name": "ood_detection", "resamples": 100} | ({"outs": outs} if outs else {}) | options
    return component("checks", options).run(ctx)


def at(found, metric, out, score, mode="mean"):
    """A metric of a score, which is of a mode unless it is of the code."""
    return found.metrics.one(metric, data=out, score=score, **({} if mode is None else {"mode": mode}))


def channel(n=120, objective="vib", **options):
    """Images whose code is N(x, I) in four dimensions, with m(z) = N(0, I) for vib."""
    torch.manual_seed(0)
    model = isthmus.bottleneck(nn.Flatten(), 2, objective, features=4, options={"covariance": "identity", **options})
    images = 0.3 * torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return model.eval(), images, (images.flatten(1)[:, 0] > 0.15).long()


def test_noise_is_noticed_and_a_flip_to_another_class_is_not():
    """Of noise both halves are equally bright; a flipped image is as good an image of the other class."""
    found = run(context())
    for score in ("entropy", "max_probability"):
        assert at(found, "auroc", "uniform_noise", score).value == 1.0
        assert at(found, "fpr95_in", "uniform_noise", score).value == 0.0
        assert at(found, "auroc", "vertical_flip", score).value == pytest.approx(0.5, abs=1e-3)
        np.testing.assert_allclose(found.arrays[f"vertical_flip_{score}"], found.arrays[f"in_{score}"], rtol=1e-3)
    assert found.status is Status.WARN
    assert "no score is shown to separate vertical flips" in found.reason
    assert "100.0% (95% interval" in found.reason
    assert {(m.coords["data"], m.coords["score"], m.name) for m in found.metrics} == {
        (out, score, metric)
        for out in ("uniform_noise", "vertical_flip")
        for score in ("entropy", "max_probability", "energy", "max_logit")
        for metric in metrics.DETECTION
    }
    assert run(context(), "uniform_noise").status is Status.MEASURED


def test_a_constant_classifier_tells_nothing():
    found = run(context(Halves(blind=True)))
    assert {metric.value for metric in found.metrics.select("auroc")} == {0.5}
    assert found.status is Status.WARN
    assert "separate uniform noise and vertical flips" in found.reason


def test_the_numbers_are_those_of_the_stored_scores():
    found = run(context(Halves(gain=4.0)), "uniform_noise")
    inside, outside = (found.arrays[f"{which}_entropy"] for which in ("in", "uniform_noise"))
    assert inside.shape == outside.shape == (60,)
    assert at(found, "aupr_out", "uniform_noise", "entropy").value == metrics.aupr(inside, outside, "out")
    np.testing.assert_allclose(inside, metrics.entropy(Halves(gain=4.0)(halves()[0]).numpy()), rtol=1e-6)
    np.testing.assert_array_equal(found.arrays["uniform_noise_index"], np.arange(60))


def test_the_rate_of_a_gaussian_channel_is_its_closed_form():
    """With m(z) = N(0, I) and unit noise, R at the mean of e(z|x) is ½‖x‖², and so it is on average over codes."""
    model, images, labels = channel()
    ctx = context(model, images, labels)
    at_mean = run(ctx, samples=0)
    expected = 0.5 * images.flatten(1).square().sum(1).numpy()
    np.testing.assert_allclose(at_mean.arrays["in_rate"], expected, atol=1e-5)
    assert run(ctx, samples=400).arrays["in_rate"].mean() == pytest.approx(expected.mean(), abs=0.03)
    # noise is brighter than images of at most 0.3
    assert at(at_mean, "auroc", "uniform_noise", "rate", None).interval.low > 0.97
    assert "by rate R" in at_mean.reason
    assert at_mean.details["left_out"] == {"residual": "the model has no backward encoder b(z|y)"}


def test_residual_looks_at_the_class_that_is_predicted():
    model, images, labels = channel(objective="ceb")
    found = run(context(model, images, labels), samples=0)
    with torch.no_grad():
        encoded = model.encode(images)
        own = model.backward_encoder()[model(images).argmax(1)]
        expected = encoded.log_prob(encoded.mean) - own.log_prob(encoded.mean)
        scores_of_classes = model.backward_encoder().scores(encoded.mean)
        mixture = encoded.log_prob(encoded.mean) - (scores_of_classes.logsumexp(1) - np.log(2))
    np.testing.assert_allclose(found.arrays["in_residual"], expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.arrays["in_rate"], mixture.numpy(), atol=1e-5)
    assert found.details["left_out"] == {}


def test_a_marginal_of_the_batch_is_no_standard():
    model, images, labels = channel(objective="ceb", marginal="batch")
    plain, _, _ = channel(objective="ceb")
    plain.load_state_dict(model.state_dict())
    ours, theirs = (run(context(m, images, labels, batch_size=size)) for m, size in ((model, 7), (plain, 120)))
    np.testing.assert_allclose(ours.arrays["in_rate"], theirs.arrays["in_rate"], rtol=1e-4, atol=1e-5)
    model, images, labels = channel(objective="vib", marginal="batch")
    found = run(context(model, images, labels), "uniform_noise")
    assert "fixed marginal" in found.details["left_out"]["rate"]
    assert "in_rate" not in found.arrays


@pytest.mark.parametrize("levels", [1, 2])
def test_results_depend_neither_on_the_batch_size_nor_on_the_order(levels):
    model, images, labels = channel(objective="hierarchical" if levels > 1 else "ceb")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(2))
    one = run(context(model, images, labels, batch_size=7))
    other = run(context(model, images[order], labels[order], batch_size=120, indices=order))
    assert "stochastic_uniform_noise_entropy" in one.arrays
    for name, values in other.arrays.items():
        np.testing.assert_allclose(values, one.arrays[name][order.numpy()], rtol=1e-3, atol=1e-4, err_msg=name)
    another = run(context(model, images, labels, seed=1))
    assert not np.allclose(another.arrays["uniform_noise_rate"], one.arrays["uniform_noise_rate"], rtol=1e-2)


def test_both_modes_are_measured():
    model, images, labels = channel(objective="ceb")
    found = run(context(model, images, labels), "vertical_flip")
    assert at(found, "auroc", "vertical_flip", "entropy", "stochastic").value is not None
    assert "stochastic_in_max_probability" in found.arrays
    assert {m.coords["score"] for m in found.metrics.select(mode="stochastic")} == {"entropy", "max_probability"}
    assert {m.coords["score"] for m in found.metrics.select(mode=None)} == {"rate", "residual"}
    rows = [row[1] for row in page.section({"m": found}).blocks[1].rows]
    assert rows == [
        "entropy",
        "maximum probability",
        "energy",
        "maximum logit",
        "entropy, stochastic",
        "maximum probability, stochastic",
        "rate R",
        "ReX to the predicted class",
    ]


class Sure(Halves):
    """The same answers in another form."""

    def __init__(self, form):
        super().__init__(gain=4.0)
        self.form = form

    def forward(self, images):
        return self.form(super().forward(images))


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (lambda z: z.log_softmax(1), "log-probabilities"),
        (lambda z: z - z.amax(1, keepdim=True), "relative to the largest"),
        (lambda z: z[:, 1:] - z[:, :1], "relative to one class's"),
        (lambda z: z, None),
    ],
)
def test_energy_needs_a_level(form, reason):
    found = run(context(Sure(form)), "uniform_noise")
    assert bool(found.metrics.select(score="energy")) == (reason is None)
    assert reason is None or reason in found.details["left_out"]["energy"]
    plain = run(context(Halves(gain=4.0)), "uniform_noise")
    for place in (("auroc", "uniform_noise", "entropy"), ("fpr95_in", "uniform_noise", "max_probability")):
        assert at(found, *place).value == pytest.approx(at(plain, *place).value)


class Missing(Halves):
    """No answer where the first pixel is bright."""

    def forward(self, images):
        return torch.where(images[:, 0, 0, :1] > 0.5, torch.nan, super().forward(images))


def test_images_without_an_answer_are_left_out_and_counted():
    images, labels = halves()
    images[:, :, 0, 0] = 0.0
    images[:3, :, 0, 0] = 1.0
    found = run(context(Missing(), images, labels), "uniform_noise")
    assert found.status is Status.WARN
    bright = int(np.isnan(found.arrays["uniform_noise_entropy"]).sum())
    assert 10 < bright < 50
    assert f"left out: {bright} of uniform noise and 3 of the audited ones" in found.reason
    assert at(found, "fpr95_in", "uniform_noise", "entropy").n == 60 - bright
    assert at(found, "auroc", "uniform_noise", "entropy").n == 120 - 3 - bright
    section = page.section({"m": found})
    assert len(section.blocks) == 3


def test_a_single_image_is_too_few():
    images, labels = halves(1)
    found = run(context(Halves(), images, labels))
    assert found.status is Status.SKIPPED
    assert found.reason.startswith("Fewer than two images have a score")
    assert not found.metrics
    assert page.section({"m": found}).blocks == ()


def test_adversarial_images_are_the_nearest_that_the_attack_finds():
    """C&W ends at the boundary between both classes, where a classifier is least sure of all."""
    ctx = context(Halves(gain=10.0))
    found = run(ctx, {"name": "cw", "steps": 60, "learning_rate": 0.05, "initial_const": 1.0}, attacked=20)
    assert found.metrics.one("attack_success", data="cw").value == 1.0
    assert found.metrics.one("attack_success", data="cw").n == 20
    assert found.arrays["cw_entropy"].min() > found.arrays["in_entropy"].max()
    assert at(found, "auroc", "cw", "entropy").value == 1.0
    assert at(found, "fpr95_in", "cw", "entropy").n == 20
    np.testing.assert_array_equal(found.arrays["cw_index"], np.arange(20))
    curve, table, _ = page.section({"m": found}).blocks
    assert "adversarial examples (C&W)" in curve.title
    assert table.columns[-1] == "attack success"
    assert "succeeded on 20 of 20 images that are classified correctly, at a mean ℓ2 distance of" in table.reading


def test_images_that_are_wrong_anyway_are_not_attacked():
    images, labels = halves()
    labels[:5] = 1 - labels[:5]
    found = run(context(Halves(gain=10.0), images, labels), {"name": "fmn", "steps": 20}, attacked=20)
    assert found.metrics.one("attack_success", data="fmn").n == 15
    np.testing.assert_array_equal(found.arrays["fmn_index"], np.arange(5, 20))


def test_an_attack_without_success_leaves_nothing_to_measure():
    labels = torch.ones(60, dtype=torch.long)
    found = run(context(Halves(blind=True), labels=labels), "cw:5", "uniform_noise", attacked=10)
    assert found.metrics.one("attack_success", data="cw").value is None
    assert "fewer than two images have a score of adversarial examples (C&W)" in found.reason
    assert not found.metrics.select("auroc", data="cw")
    assert all(cell is None for cell in page.section({"m": found}).blocks[0].rows[0][2:7])
    assert run(context(Halves(blind=True), labels=labels), "cw:5", attacked=10).status is Status.SKIPPED


def test_another_data_set_is_converted_with_notice():
    images, labels = halves(channels=3, size=12)
    found = run(context(Halves(), images, labels), "digits")
    out = found.details["outs"][0]
    assert (out["name"], out["n"]) == ("digits", 60)
    expected = "resampled from 8×8 to 12×12 pixels and given their grey value in all three channels"
    assert out["notice"] == f"Images of digits were {expected}."
    assert expected in page.section({"m": found}).blocks[1].reading
    assert len(set(found.arrays["digits_index"])) == 60
    with pytest.raises(DataError, match="1 channels and the audited ones have 2"):
        run(context(Halves(), *halves(channels=2)), "digits")


def test_a_data_set_against_itself_is_not_told_apart():
    from isthmus.data.images import as_float
    from isthmus.data.loading import load

    test = load("digits").test
    found = run(context(Halves(gain=8.0), as_float(test.images[:150]), test.labels[:150] % 2), "digits", resamples=300)
    interval = at(found, "auroc", "digits", "entropy").interval
    assert interval.low < 0.5 < interval.high
    assert found.details["outs"][0]["notice"] == ""


def test_conversions():
    grey = torch.rand(2, 1, 5, 7)
    assert torch.equal(adapted(grey, (3, 5, 7)), grey.expand(-1, 3, -1, -1))
    assert torch.allclose(adapted(adapted(grey, (3, 5, 7)), (1, 5, 7)), grey)
    rgb = torch.zeros(1, 3, 4, 4)
    rgb[:, 1] = 1.0
    assert torch.allclose(adapted(rgb, (1, 4, 4)), torch.full((1, 1, 4, 4), 0.587))
    small = adapted(torch.full((1, 1, 9, 6), 0.25), (1, 3, 4))
    assert small.shape == (1, 1, 3, 4)
    assert torch.allclose(small, torch.full((1, 1, 3, 4), 0.25))


def test_any_folder_of_images(tmp_path):
    random = np.random.default_rng(0)
    for name in ("b/two.png", "a/one.png", "three.JPG", ".hidden/four.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = run(context(), f"folder:{tmp_path}")
    out = found.details["outs"][0]
    assert out["n"] == 3
    assert out["name"] == f"folder_{tmp_path.name}".replace("-", "_").lower()
    assert "cropped and resampled to 8×8 pixels" in out["notice"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="hold no image"):
        run(context(), f"folder:{tmp_path}/empty")
    with pytest.raises(DataError, match="There is no folder"):
        run(context(), f"folder:{tmp_path}/nowhere")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="broken.png is not a readable image"):
        run(context(), {"name": "folder", "path": str(tmp_path)})


def test_an_image_of_a_folder_is_seen_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    found = run(context(Halves(gain=4.0)), f"folder:{tmp_path}")
    name = found.details["outs"][0]["name"]
    expected = Halves(gain=4.0)(torch.from_numpy(pixels)[:, None].float() / 255)
    np.testing.assert_allclose(found.arrays[f"{name}_entropy"], metrics.entropy(expected.numpy()), rtol=1e-5)
    assert found.details["outs"][0]["notice"] == ""


def openood(root, sets, count=3):
    """Lists and images as OpenOOD's download script leaves them; every image is grey of another level."""
    for number, (which, folder) in enumerate(sets.items()):
        lines = []
        for index in range(count):
            place = Path(which) / f"a b/{index}.png"
            (root / folder / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 40 * number + index, np.uint8)).save(root / folder / place)
            lines.append(f"{place} -1")
        lists = root / "benchmark_imglist" / "cifar10"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"test_{which}.txt").write_text("\n".join(lines) + "\n")


def test_openoods_sets_are_read_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    openood(tmp_path / "openood", dict.fromkeys(("cifar100", "tin"), "images_classic"))
    config = component("checks", {"name": "ood_detection", "outs": ["openood:cifar10/near", "uniform_noise"]})
    assert [out.plain().get("set") for out in config.outs] == ["cifar10/cifar100", "cifar10/tin", None]
    assert component("checks", config.plain()) == config
    found = run(context(Halves(gain=4.0)), "openood:cifar10/near")
    names = ["openood_cifar10_cifar100", "openood_cifar10_tin"]
    assert [(out["name"], out["n"], out["notice"]) for out in found.details["outs"]] == [
        (name, 3, "") for name in names
    ]
    images = torch.tensor([40, 41, 42]).view(3, 1, 1, 1).expand(3, 1, 8, 8).float() / 255
    expected = metrics.energy(Halves(gain=4.0)(images).numpy())
    np.testing.assert_allclose(found.arrays["openood_cifar10_tin_energy"], expected, rtol=1e-5)
    whole = component("checks", {"name": "ood_detection", "outs": ["openood:imagenet"]})
    assert [out.set for out in whole.outs] == [
        f"imagenet/{name}" for name in ("ssb_hard", "ninco", "inaturalist", "textures", "openimage_o")
    ]


@pytest.mark.parametrize(("name", "shorter"), [("cifar10/tin", 8), ("imagenet/ninco", 9)])
def test_photographs_are_cropped_as_openood_does(tmp_path, name, shorter):
    """The shorter side is scaled to 8 pixels, or with ImageNet's margin to 8·256/224, and the centre is cut out."""
    benchmark, which = name.split("/")
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (27, 54), dtype=np.uint8))
    folder = "images_classic" if benchmark == "cifar10" else "images_largescale"
    (tmp_path / folder).mkdir()
    photograph.save(tmp_path / folder / "a.png")
    (tmp_path / "benchmark_imglist" / benchmark).mkdir(parents=True)
    (tmp_path / "benchmark_imglist" / benchmark / f"test_{which}.txt").write_text("a.png -1\na.png -1\n")
    found = run(context(Halves(gain=4.0)), {"name": "openood", "set": name, "path": str(tmp_path)})
    scaled = np.asarray(photograph.resize((2 * shorter, shorter), Image.Resampling.BILINEAR))
    top, left = round((shorter - 8) / 2), round((2 * shorter - 8) / 2)
    image = torch.from_numpy(scaled[top : top + 8, left : left + 8].copy()).float()[None, None] / 255
    (out,) = found.details["outs"]
    expected = metrics.energy(Halves(gain=4.0)(image).numpy())
    np.testing.assert_allclose(found.arrays[f"{out['name']}_energy"], np.repeat(expected, 2), rtol=1e-5)


def test_what_openood_lacks_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    with pytest.raises(DataError, match=r"OpenOOD's sets is unknown.*download.py"):
        run(context(), "openood:cifar10/tin")
    given = {"name": "openood", "set": "cifar10/tin", "path": str(tmp_path)}
    with pytest.raises(DataError, match=r"no .*benchmark_imglist/cifar10/test_tin.txt\. With a network"):
        run(context(), given)
    openood(tmp_path, {"tin": "images_classic"})
    (tmp_path / "images_classic/tin/a b/2.png").unlink()
    with pytest.raises(DataError, match=r"no .*2.png, which .*test_tin.txt names"):
        run(context(), given)
    (tmp_path / "benchmark_imglist/cifar10/test_tin.txt").write_text("../../etc/passwd 0\n")
    with pytest.raises(DataError, match="Line 1 of .* expected a path below"):
        run(context(), given)
    (tmp_path / "benchmark_imglist/cifar10/test_tin.txt").write_text("\n")
    with pytest.raises(DataError, match="lists no image"):
        run(context(), given)


def test_imagenet_o_is_a_folder_below_the_mirror(tmp_path, monkeypatch):
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    with pytest.raises(DataError, match=r"ImageNet-O is unknown.*imagenet-o.tar"):
        run(context(), "imagenet_o")
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    with pytest.raises(DataError, match="no folder .*hendrycks/imagenet-o with ImageNet-O"):
        run(context(), "imagenet_o")
    for index, wnid in enumerate(("n01443537", "n01704323")):
        folder = tmp_path / "hendrycks/imagenet-o" / wnid
        folder.mkdir(parents=True)
        Image.fromarray(np.full((20, 10), index, np.uint8)).save(folder / "0.jpg")
    (out,) = run(context(), "imagenet_o").details["outs"]
    assert (out["name"], out["title"], out["n"]) == ("imagenet_o", "ImageNet-O", 2)
    assert "cropped and resampled to 8×8" in out["notice"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outs": ["openood:cifar1O/near"]}, "no OpenOOD benchmark 'cifar1O'. Did you mean 'cifar10'"),
        ({"outs": ["openood:cifar10/tim"]}, "no set of OpenOOD's benchmark cifar10 'tim'. Did you mean 'tin'"),
        ({"outs": ["uniform_nose"]}, "Did you mean 'uniform_noise'"),
        ({"outs": ["uniform_noise:3"]}, "nothing after a colon"),
        ({"outs": [{"name": "vertical_flip", "axis": 1}]}, "axis"),
        ({"outs": [{"path": "x"}]}, "no out-distribution"),
        ({"outs": ["pgd"]}, "There is: cifar10, cifar100, csv, cw, ddn, digits, fab"),
        ({"outs": ["folder"]}, "path"),
        ({"outs": ["folder:"]}, "path"),
        ({"outs": ["cw:none"]}, "steps"),
        ({"outs": []}, "outs"),
        ({"attacked": 0}, "attacked"),
        ({"samples": -1}, "samples"),
    ],
)
def test_bad_options_are_one_sentence(options, said):
    with pytest.raises(ConfigError, match=said):
        component("checks", {"name": "ood_detection"} | options)


def test_options_can_be_read_again():
    given = {"name": "ood_detection", "outs": ["uniform_noise", "cw:100", "mnist", {"name": "folder", "path": "x"}]}
    config = component("checks", given)
    assert [out["name"] for out in config.plain()["outs"]] == ["uniform_noise", "cw", "mnist", "folder"]
    assert config.plain()["outs"][1]["steps"] == 100
    assert component("checks", config.plain()) == config


def test_the_same_kind_twice_gets_two_names():
    found = run(context(), {"name": "fmn", "steps": 5}, {"name": "fmn", "steps": 9}, attacked=5)
    assert [out["name"] for out in found.details["outs"]] == ["fmn", "fmn_2"]


def test_the_page_compares_classifiers_and_survives_storage(tmp_path):
    model, images, labels = channel(objective="ceb")
    of = {
        "code": run(context(model, images, labels)),
        "plain": run(context(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), images, labels)),
    }
    results.save_result(tmp_path, of["code"])
    loaded = results.load_result(tmp_path, "ood_detection")
    section = page.section(of)
    assert page.section(of | {"code": loaded}) == section
    for name, result in of.items():
        best = [
            max(metric.value for metric in result.metrics.select("auroc", data=out))
            for out in ("uniform_noise", "vertical_flip")
        ]
        headline = section.headlines[name]
        assert headline.metric.value == min(best)
        out, _, score = headline.note.partition(", by ")
        row = next(row for row in section.blocks[3 if out == "vertical flips" else 1].rows if row[:2] == (name, score))
        assert headline.metric in row
    kinds = [type(block).__name__ for block in section.blocks]
    assert kinds == ["Figure", "Table", "Figure", "Table", "Figure", "Figure"]
    curves, table = section.blocks[:2]
    assert [series.name for series in curves.series] == ["code (entropy)", "code (rate R)", "plain (entropy)"]
    for series in curves.series:
        assert (series.x[0], series.y[0], series.x[-1], series.y[-1]) == (0, 0, 1, 1)
    assert len(table.rows) == 8 + 4
    assert list(section.columns) == [
        f"AUROC against {said}, by {score}"
        for said in ("uniform noise", "vertical flips")
        for score in ("entropy", "rate R")
    ]
    assert set(section.columns["AUROC against uniform noise, by rate R"]) == {"code"}
    for figure in section.blocks[-2:]:
        for series in figure.series:
            assert sum(series.y) == pytest.approx(1.0)  # every image is in a bin, however far out
    assert " images for plain" in section.blocks[-2].reading


def test_scores_of_any_images_can_be_had_alone():
    """What studies call: an adopted model, images, and the metrics of two sets of scores."""
    model, images, _ = channel(objective="ceb")
    model.train()
    adopted = adopt(model, images)
    model.train()
    found = Scorer(adopted, samples=4, batch_size=50)(images)
    assert model.training
    assert set(found) == {
        *(Score(name, "mean") for name in ("entropy", "max_probability", "energy", "max_logit")),
        *(Score(name, "stochastic") for name in ("entropy", "max_probability")),
        *(Score("rate"), Score("residual")),
    }
    other = Scorer(adopted, samples=4)(torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(3)))
    measured = metrics.detection_metrics(found[Score("rate")], other[Score("rate")], seed=0, resamples=50)
    assert measured["auroc"].n == 150
    assert unavailable(adopted, model(images).detach().numpy()) == {}


def test_an_audit_of_a_bottleneck_on_digits(tmp_path):
    from isthmus.data.images import as_float
    from isthmus.data.loading import load

    torch.manual_seed(0)
    data = load("digits")
    images, labels, test = as_float(data.train.images), data.train.labels, data.test
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
    model = isthmus.bottleneck(backbone, 10, {"name": "vib", "rho": 4}, features=64, dim=8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(images, labels).total.backward()
        optimizer.step()
    checks = [{"name": "ood_detection", "resamples": 100}, "information"]
    arguments = (as_float(test.images), test.labels, "linf:0.1", checks)
    audit = isthmus.audit(model, *arguments, out=tmp_path / "audit")
    found = audit.results["ood_detection"]
    assert found.status is Status.MEASURED, found.reason
    assert at(found, "auroc", "uniform_noise", "rate", None).interval.low > 0.9
    rate = audit.results["information"].metrics.one("rate").value
    assert found.arrays["in_rate"].mean() == pytest.approx(rate, abs=0.3), "both checks mean the same R"
    html = audit.save(tmp_path / "page.html").read_text()
    assert "Does it detect out-of-distribution images?" in html
    assert "ROC curves: vertical flips" in html
    again = isthmus.audit(model, *arguments, out=tmp_path / "audit")
    assert again.results["ood_detection"].provenance == found.provenance, "nothing was run again"
