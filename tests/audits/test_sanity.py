"""A look at a classifier before any attack: mistakes of the set-up are named, and sound classifiers raise none."""

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.audits import sanity
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.types import Status
from tests.diagnosis.trained_digits import conv_net, fit, held_out, undefended

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


class Around(nn.Module):
    """A trained classifier that gets its images changed, or whose outputs are changed."""

    def __init__(self, images=lambda x: x, outputs=lambda z: z, model=None):
        super().__init__()
        self.model, self.images, self.outputs = model or undefended(), images, outputs

    def forward(self, images):
        return self.outputs(self.model(self.images(images)))


def column(values):
    return torch.tensor(values).view(-1, 1, 1)


class Brightness(nn.Module):
    """Classes by the mean of each channel, one of eight bins in [0, 1], as seen through ``images``."""

    def __init__(self, images=lambda x: x):
        super().__init__()
        self.images = images

    def forward(self, images):
        means = self.images(images).mean((2, 3))
        weighted = means @ torch.arange(1.0, means.shape[1] + 1) / sum(range(1, means.shape[1] + 1))
        return -1000 * (weighted[:, None] - torch.linspace(0.1, 0.9, 8)) ** 2


def plain(channels: int, n: int = 160) -> tuple[Tensor, Tensor]:
    """Images of random brightness in each channel, and their classes."""
    generator = torch.Generator().manual_seed(0)
    level = torch.rand(n, channels, 1, 1, generator=generator) ** 0.5
    images = (level + 0.02 * torch.randn(n, channels, 6, 6, generator=generator)).clamp(0, 1)
    return images, Brightness()(images).argmax(1)


def cautions(model: nn.Module, images: Tensor, labels: Tensor, **options):
    audit = isthmus.audit(model, images, labels, "linf:0.05", ["accuracy"], options=isthmus.AuditOptions(**options))
    return {caution.about: caution for caution in audit.cautions}


def test_a_sound_classifier_raises_no_caution():
    assert cautions(undefended(), *held_out(300)) == {}


def test_at_chance_no_attack_runs_and_there_is_no_verdict():
    images, labels = held_out(300)
    seen = []
    model = Around(lambda x: x / 255)
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    checks = ["diagnosis", "accuracy", "robustness", "calibration"]
    audit = isthmus.audit(model, images, labels, "linf:0.1", checks)
    assert [audit.results[check].status for check in checks] == ["skipped", "fail", "skipped", "warn"]
    assert sum(seen) < 20 * len(images)
    (caution,) = audit.cautions
    assert (caution.about, caution.level) == ("chance", "error")
    assert "mean=0, std=1 / 255" in caution.text
    with pytest.raises(ConfigError, match="It was skipped: .*std=1 / 255"):
        _ = audit.verdict
    fixed = isthmus.normalized(model, mean=0, std=1 / 255)
    assert isthmus.audit(fixed, images, labels, "linf:0.1", ["accuracy"]).cautions == ()


def test_with_labels_of_mostly_one_class_a_classifier_that_tells_them_apart_is_not_at_chance():
    """All of 32 are right, 29 of one class: the interval reaches below 29/32, but no constant prediction does this."""
    images, _ = held_out(300)
    predicted = undefended()(images).argmax(1)
    rows = torch.cat([torch.where(predicted == 3)[0][:29], torch.where(predicted != 3)[0][:3]])
    assert "chance" not in cautions(undefended(), images[rows], predicted[rows])
    constant = Around(outputs=lambda z: 0 * z + torch.eye(10)[3])
    assert "chance" in cautions(constant, images[rows], predicted[rows])
    few_others = Around(outputs=lambda z: torch.cat([torch.eye(10)[[3]].repeat(len(z) - 1, 1), z[-1:]]))
    assert "chance" in cautions(few_others, images[rows], predicted[rows]), "one more right than a constant prediction"


def test_of_few_images_nothing_is_said():
    images, labels = held_out(sanity.MIN_IMAGES - 1)
    assert cautions(Around(lambda x: x / 255), images, labels) == {}


def inverse(mean, std):
    """What undoes the normalisation that a model expects."""
    return lambda x: x * column(std) + column(mean)


EXPECTS = {
    "ImageNet": (3, inverse(*IMAGENET), f"mean={IMAGENET[0]}, std={IMAGENET[1]}"),
    "CIFAR-10": (3, inverse(*CIFAR10), f"mean={CIFAR10[0]}, std={CIFAR10[1]}"),
    "MNIST": (1, inverse((0.1307,), (0.3081,)), "mean=0.1307, std=0.3081"),
    "Fashion-MNIST": (1, inverse((0.286,), (0.353,)), "mean=0.286, std=0.353"),
    "symmetric": (3, inverse((0.5,), (0.5,)), "mean=0.5, std=0.5"),
    "bytes": (3, inverse((0.0,), (1 / 255,)), "mean=0, std=1 / 255"),
    "twice": (3, lambda x: (x - column(IMAGENET[0])) / column(IMAGENET[1]), "twice"),
    "symmetric twice": (1, lambda x: 2 * x - 1, "twice"),
    "BGR": (3, lambda x: x.flip(1), "BGR"),
    "Caffe": (3, lambda x: (x + column([103.939, 116.779, 123.68])).flip(1) / 255, "Caffe"),
    "inverted": (1, lambda x: 1 - x, "1 - images"),
}


@pytest.mark.parametrize("name", EXPECTS)
def test_the_images_that_a_classifier_expects_are_named(name):
    channels, change, said = EXPECTS[name]
    images, labels = plain(channels)
    found = cautions(Brightness(change), images, labels)
    (caution,) = found.values()
    assert caution.about in ("images", "chance")
    assert said in caution.text
    assert "100.0% of 160 would be right" in caution.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.transpose(2, 3), "transpose(2, 3)"),
        (lambda x: x.permute(0, 2, 3, 1).reshape(x.shape), "permute(0, 3, 1, 2)"),
    ],
    ids=["transposed", "reshaped"],
)
def test_layouts_of_images_are_recognised(change, said):
    """Images as a wrong loader gives them, to a network that was trained on right ones."""
    images, labels = held_out(200)
    coloured = torch.cat([images, 1 - images, 0.5 * images], 1)
    model = Around(lambda x: (x[:, :1] + 1 - x[:, 1:2]) / 2)
    assert cautions(model, coloured, labels) == {}
    assert said in cautions(model, change(coloured), labels)["chance"].text


def test_a_normalisation_that_gains_little_is_not_named():
    """This network has 87% on images that are not normalised, and 92% on those that are."""
    assert cautions(Around(lambda x: x * 0.3081 + 0.1307), *held_out(300)) == {}


def test_with_a_limit_on_queries_changed_images_are_tried_only_at_chance():
    images, labels = plain(3)
    assert "images" in cautions(Brightness(inverse(*CIFAR10)), images, labels)
    assert cautions(Brightness(inverse(*CIFAR10)), images, labels, max_queries=10_000) == {}
    assert "std=1 / 255" in cautions(Brightness(lambda x: x / 255), images, labels, max_queries=10_000)["chance"].text


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (lambda y: (y + 3) % 10, [7, 8, 9, 0, 1, 2, 3, 4, 5, 6]),
        (lambda y: torch.tensor([0, 1, 2, 5, 4, 3, 6, 7, 8, 9])[y], [0, 1, 2, 5, 4, 3, 6, 7, 8, 9]),
    ],
    ids=["all", "two"],
)
def test_labels_in_another_order_are_recognised(labels, order):
    images, truth = held_out(300)
    (caution,) = cautions(undefended(), images, labels(truth)).values()
    assert f"torch.tensor({order})[labels]" in caution.text
    assert caution.about == ("labels" if order[0] == 0 else "chance")
    assert cautions(undefended(), images, torch.tensor(order)[labels(truth)]) == {}


def test_classes_sorted_as_text_are_recognised():
    """A folder of the names 0 to 11 comes in the order 0, 1, 10, 11, 2, ..., 9."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(360) % 12
    images = torch.rand(360, 12, 1, 1, generator=generator) / 2 + 0.4 * nn.functional.one_hot(classes)[..., None, None]
    names = sorted(range(12), key=str)
    (caution,) = cautions(
        Around(outputs=lambda z: 10 * z - 5, model=nn.Flatten()),
        images,
        torch.tensor([names.index(k) for k in classes.tolist()]),
    ).values()
    assert "sorted as text" in caution.text
    assert f"torch.tensor({names})[labels]" in caution.text


IMAGENETTE = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


def many_logits(z: Tensor) -> Tensor:
    """Logits of 1,000 classes, of which Imagenette has ten."""
    return torch.full((len(z), 1000), -5.0).index_copy(1, torch.tensor(IMAGENETTE), z)


def test_a_folder_with_few_of_the_models_classes_is_recognised():
    images, labels = held_out(300)
    model = Around(outputs=many_logits)
    assert f"torch.tensor({IMAGENETTE})[labels]" in cautions(model, images, labels)["chance"].text
    assert cautions(model, images, torch.tensor(IMAGENETTE)[labels]) == {}


@pytest.mark.parametrize(("height", "level"), [(4.0, "note"), (12.0, "warning")])
def test_predictions_of_classes_without_a_label_are_counted(height, level):
    images, labels = held_out(300)

    def with_others(z):
        return torch.cat([z, height * torch.rand(len(z), 100, generator=torch.Generator().manual_seed(0))], 1)

    caution = cautions(Around(outputs=with_others), images, labels)["classes"]
    assert caution.level == level
    assert "110 logits for 10 classes" in caution.text


def test_untrained_weights_are_named_if_nothing_else_helps():
    torch.manual_seed(0)
    text = cautions(conv_net(), *held_out(300))["chance"].text
    assert "weights are likely untrained" in text
    constant = Around(outputs=lambda z: 0 * z + torch.eye(10)[3] - 1)
    assert "Nearly all predictions are class 3" in cautions(constant, *held_out(300))["chance"].text


class Normalising(nn.Module):
    """A network after batch normalisation."""

    def __init__(self):
        super().__init__()
        self.norm, self.net = nn.BatchNorm2d(1), conv_net()

    def forward(self, images):
        return self.net(self.norm(images))


def test_running_statistics_that_were_not_loaded_are_recognised():
    trained, model = fit(Normalising()), Normalising()
    weights = {name: value for name, value in trained.state_dict().items() if "running" not in name}
    model.load_state_dict(weights, strict=False)
    model.norm.running_mean.fill_(3.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert "running_mean and running_var" in cautions(model, *held_out(300))["chance"].text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Statistics(nn.Module):
    """Batch normalisation of images that were normalised by these constants in training, and others now."""

    def __init__(self, shift=0.0, scale=1.0):
        super().__init__()
        self.shift, self.scale = shift, scale
        self.norm, self.head = nn.BatchNorm2d(1), nn.Linear(16, 4)
        self.norm.running_mean.fill_(0.0)
        self.norm.running_var.fill_(1.0)
        torch.manual_seed(0)
        nn.init.normal_(self.head.weight)

    def forward(self, images):
        return self.head(self.norm((images - self.shift) * self.scale).flatten(1))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Statistics(0.3, 1 / 0.2), None),
        (Statistics(0.0, 1.0), "normalisation is missing"),
        (Statistics(0.3 + 0.3 * 0.2, 1 / 0.2**2), "applied twice"),
        (Statistics(0.3 * 255, 1 / (0.2 * 255)), r"[0, 255]"),
    ],
    ids=["right", "missing", "twice", "bytes"],
)
def test_images_that_batch_normalisation_does_not_know_are_warned_of(model, said):
    """The labels are the predictions, so that accuracy shows nothing."""
    images = (0.3 + 0.2 * torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    labels = model.eval()(images).argmax(1).detach()
    labels[:5] = (labels[:5] + 1) % 4
    found = cautions(model, images, labels)
    if said is None:
        assert found == {}
    else:
        assert any(said in caution.text for caution in found.values())
    assert "batch_statistics" not in cautions(model, images[:10], labels[:10])


def test_outputs_of_a_sigmoid_for_each_class_are_warned_of():
    found = cautions(Around(outputs=torch.sigmoid), *held_out(300))
    assert [(caution.about, caution.level) for caution in found.values()] == [("outputs", "warning")]
    assert list(cautions(Around(outputs=lambda z: z.softmax(1)), *held_out(300))) == ["probabilities"]


def test_cautions_are_stored_and_shown(tmp_path):
    images, labels = held_out(300)
    audit = isthmus.audit(
        Around(lambda x: x / 255), images, labels, "linf:0.1", ["diagnosis", "accuracy"], out=tmp_path
    )
    again = isthmus.audit(
        Around(lambda x: x / 255), images, labels, "linf:0.1", ["diagnosis", "accuracy"], out=tmp_path
    )
    assert audit.cautions == again.cautions
    assert again.results["diagnosis"].status is Status.SKIPPED
    assert "std=1 / 255" in audit.save(tmp_path / "audit.html").read_text()
    assert "not above the 10.7% of a constant prediction" in repr(audit)


class TestNormalized:
    def test_it_normalises_each_channel(self):
        images = torch.rand(2, 3, 4, 4)
        model = isthmus.normalized(nn.Flatten(), *IMAGENET)
        torch.testing.assert_close(model(images), ((images - column(IMAGENET[0])) / column(IMAGENET[1])).flatten(1))
        torch.testing.assert_close(
            isthmus.normalized(nn.Flatten(), 0.5, [0.1, 0.2, 0.5])(images)[:, :16],
            (images[:, 0].flatten(1) - 0.5) / 0.1,
        )

    def test_three_channels_of_it_are_refused_for_grey_images(self):
        """Broadcasting would make three channels of one."""
        model = isthmus.normalized(nn.Flatten(), "imagenet")
        with pytest.raises(ModelError, match="normalisation has 3 channels, but the images have 1. Give one mean"):
            isthmus.audit(model, torch.rand(4, 1, 2, 2), torch.arange(4), "linf:0.1")
        assert isthmus.normalized(nn.Flatten(), 0.5, 0.5)(torch.rand(4, 3, 2, 2)).shape == (4, 12)

    def test_it_is_in_the_models_mode(self):
        assert not isthmus.normalized(nn.Flatten().eval(), 0.5, 0.5).training
        assert isthmus.normalized(nn.Flatten(), 0.5, 0.5).training

    def test_wrong_numbers_are_explained(self):
        with pytest.raises(isthmus.IsthmusError, match="as many means"):
            isthmus.normalized(nn.Flatten(), [0.0, 0.5], [1.0, 1.0, 1.0])
        with pytest.raises(isthmus.IsthmusError, match="above 0"):
            isthmus.normalized(nn.Flatten(), 0.0, 0.0)
