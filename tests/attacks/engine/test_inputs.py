"""What does not fit is refused in one clear sentence, before any attack runs."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import isthmus
from isthmus.attacks import Linf, curve, robust_accuracy
from isthmus.attacks.api import expected_queries
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.pgd import PGD
from isthmus.attacks.suites import SUITES, stages_of
from isthmus.attacks.threats import L2
from isthmus.core import progress
from isthmus.core.config import component
from isthmus.core.errors import ConfigError, DataError, ModelError
from tests.attacks.attacked_models import Smooth, pictures, subject

IMAGES = pictures(4)
LABELS = torch.tensor([0, 1, 2, 0])
PAIRS = TensorDataset(IMAGES, LABELS)
SCALE = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (IMAGES * 255, LABELS, r"must lie in \[0, 1\]; these range from 0 to 255"),
        (IMAGES - 0.5, LABELS, "range from -0.5"),
        ((IMAGES * 255).int(), LABELS, "For bytes, pass images.float"),
        (IMAGES.tolist()[0][0], LABELS, r"shape N×C×H×W .* got float32 of shape \(4, 4\)"),
        ("images", LABELS, "images must be a tensor, an array or a list of numbers; got str"),
        (IMAGES.to_sparse(), LABELS, r"images must be a dense tensor; got torch.sparse_coo. Convert it with to_dense"),
        (IMAGES.to("meta"), LABELS, "images are on the device 'meta', which holds no values"),
        (IMAGES.to(torch.complex64), LABELS, "images must be real numbers; got torch.complex64"),
        (IMAGES[0], LABELS, r"shape N×C×H×W .* for one image C×H×W, images\[None\]"),
        (IMAGES[:0], LABELS[:0], "at least one image"),
        (IMAGES * torch.nan, LABELS, "be finite; image 0 holds nan"),
        (IMAGES, LABELS.float(), "labels must be integers .* got float32"),
        (IMAGES, LABELS.bool(), "labels must be integers .* got bool"),
        (IMAGES, ["cat", "dog", "dog", "cat"], "labels must be a tensor, an array or a list of numbers; got list"),
        (IMAGES, ["cat", "dog", "dog", "cat"], "got list of str"),
        (DataLoader(PAIRS), LABELS, "got DataLoader. It holds labels, too: leave out the others"),
        (PAIRS, LABELS, "got TensorDataset. It holds labels, too: leave out the others"),
        (IMAGES, LABELS.to_sparse(), "labels must be a dense tensor"),
        (IMAGES, LABELS.to("meta"), "labels are on the device 'meta'"),
        (IMAGES, LABELS[:3], r"one for each of 4 images; got int64 of shape \(3,\)"),
        (IMAGES, LABELS[:, None], r"got int64 of shape \(4, 1\)"),
        (IMAGES, LABELS - 1, "must not be negative; the smallest is -1"),
        (IMAGES, LABELS + 1, r"labels\[2\] is 3; with 3 classes a label is 0 to 2 .* subtract 1"),
    ],
)
def test_bad_data(images, labels, words):
    with pytest.raises(DataError, match=words):
        robust_accuracy(Smooth(), images, labels, Linf(0.1))
    with pytest.raises(DataError):
        isthmus.audit(Smooth(), images, labels, Linf(0.1), ["accuracy"])


def test_bad_targets():
    with pytest.raises(DataError, match="Example 1 has its own label 1 as target"):
        robust_accuracy(Smooth(), IMAGES, LABELS, Linf(0.1), options=RunOptions(targets=torch.tensor([1, 1, 1, 1])))
    with pytest.raises(DataError, match=r"targets\[3\] is 7"):
        robust_accuracy(Smooth(), IMAGES, LABELS, Linf(0.1), options=RunOptions(targets=torch.tensor([1, 2, 1, 7])))


class Giving(nn.Module):
    """Returns what a function makes of the images."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Smooth().forward, "An? .*nn.Module .*; got method. isthmus.black_box makes one"),
        (Smooth, "got the class Smooth. Pass an instance"),
        (Smooth().state_dict(), "got OrderedDict. Load weights into a module with load_state_dict"),
        ("w.safetensors", "got str. isthmus.load loads a run folder"),
        (None, "got NoneType.$"),
        (Giving(lambda x: x), r"shape \(4, 1, 4, 4\) for 4 images; expected \(4, classes\)"),
        (Giving(lambda x: x.flatten(1)[:, :0]), "binary classifier"),
        (Giving(lambda x: x.flatten(1).sum(0, keepdim=True)), r"shape \(1, 16\) for 4 images"),
        (Giving(lambda x: (x.flatten(1), x.flatten(1))), "returned tuple where a tensor of logits is expected"),
        (
            Giving(lambda x: torch.tensor([[2.0, 0.0]]).expand(len(x), 2) * 1.0),
            "no gradient with respect to its images",
        ),
        (
            Giving(lambda x: x.detach().flatten(1)[:, :2] * SCALE - torch.tensor([0.0, 9.0])),
            "no gradient with respect to its images",
        ),
        (nn.LazyLinear(3), "weight of LazyLinear has no shape yet: it is of a lazy layer"),
        (nn.Linear(16, 3, device="meta"), "weight of Linear is on the device 'meta'"),
        (nn.Linear(3, 3), "The model fails on torch.float32 images of shape"),
    ],
)
def test_bad_models(model, words):
    with pytest.raises(ModelError, match=words):
        robust_accuracy(model, IMAGES, torch.zeros(4, dtype=torch.int64), Linf(0.1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"suite": ["pdg"]}, "no attack or suite 'pdg'. Did you mean 'pgd'"),
        ({"suite": "standardd"}, "no attack or suite 'standardd'.* Did you mean 'standard'"),
        ({"suite": []}, "at least one attack"),
        ({"suite": ["clean"]}, "at least one attack"),
        ({"suite": None}, "A suite is a name such as 'standard', or a list of attacks; got None"),
        ({"suite": "apgd-9x100"}, "'apgd-9x100' is a stage of the suite 'fast'.*; give 'fast'"),
        ({"suite": "pgd-2"}, "'pgd-2' is the label of attack number 2 called 'pgd'.* as 'pgd:2'"),
        ({"suite": "PGD"}, "no attack or suite 'PGD'. Did you mean 'pgd'"),
        ({"suite": "AutoAttack"}, "the suite 'standard' has AutoAttack's attacks"),
        ({"options": {"jobs": 2}}, "options must be RunOptions, such as .*; got dict"),
        ({"seed": -1}, "seed must be a whole number from 0 .*; got -1"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": 2**63}, "seed must be a whole number"),
        ({"suite": [{"name": "pgd", "stepz": 3}]}, "Did you mean 'steps'"),
        ({"suite": [{"name": "pgd", "steps": 0}]}, "greater than 0"),
        ({"suite": [{"name": "pgd", "step_size": 0.1, "relative_step_size": 0.1}]}, "not both"),
        ({"suite": [{"name": "pgd", "restarts": 2, "random_start": False}]}, "would repeat one run"),
        ({"batch_size": 0}, "batch_size must be a positive"),
        ({"threat": "lnf:0.1"}, "Did you mean 'linf'"),
        ({"threat": 0.1}, r"A threat is an object such as Linf\(8 / 255\)"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ConfigError, match=words):
        robust_accuracy(Smooth(), IMAGES, LABELS, **{"threat": Linf(0.1), **options})


def test_a_curve_has_one_norm():
    with pytest.raises(ConfigError, match="one norm"):
        curve(Smooth(), IMAGES, LABELS, [Linf(0.1), L2(0.1)])


def test_other_types_that_do_fit():
    model, images, labels = subject()
    expected = robust_accuracy(model, images, labels, Linf(0.1), ["fgsm", "pgd"])
    for given in (
        (images.double(), labels.int()),
        (images, labels.to(torch.uint8)),
        (images.requires_grad_(), labels),
        (images.detach().numpy(), labels.numpy()),
        (images.tolist(), labels.tolist()),
    ):
        assert np.array_equal(robust_accuracy(model, *given, "linf:0.1", ["fgsm", "pgd"]).broken, expected.broken)


def test_step_sizes():
    assert PGD().size(0.4) == pytest.approx(0.025)
    assert PGD(step_size=0.01).size(0.4) == 0.01
    assert PGD(steps=20, relative_step_size=4 / 3 / 20).size(8 / 255) == pytest.approx(4 / 3 * 8 / 255 / 20)
    assert component("attacks", "pgd:7").steps == 7


def test_two_attacks_of_one_name_are_told_apart():
    model, images, labels = subject()
    result = robust_accuracy(model, images, labels, Linf(0.05), ["pgd:2", "pgd", "fgsm"])
    assert result.attacks == ("clean", "pgd", "pgd-2", "fgsm")


@pytest.mark.parametrize("suite", ["standard", "rand", ["fgsm", "apgd-margin:3", "apgd-ce-t:2"]], ids=str)
def test_the_names_of_attacks_in_a_result_are_those_of_a_suite(suite):
    model, images, labels = subject()
    given = [attack if isinstance(attack, str) else {**attack, "steps": 3} for attack in SUITES.get(str(suite), suite)]
    given = ["square:10" if attack == "square:5000" else attack for attack in given]
    result = robust_accuracy(model, images, labels, Linf(0.1), given)
    for names in (list(result.by_attack), result.by_attack):  # the first attack breaks all images
        again = robust_accuracy(model, images[:4], labels[:4], Linf(1.0), names)
        assert again.attacks == result.attacks


def test_an_attack_by_its_label_does_what_it_did_in_its_suite():
    labelled, written = stages_of("apgd-dlr-t:5"), stages_of({"name": "apgd", "loss": "dlr", "targets": 9, "steps": 5})
    assert labelled == written


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_a_bar_in_a_terminal(monkeypatch, capsys, shown):
    model, images, labels = subject()
    for given in ({"progress": shown}, {"options": RunOptions(progress=shown)}):
        console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
        monkeypatch.setattr(progress, "Console", lambda stderr, console=console: console)
        robust_accuracy(model, images, labels, Linf(0.1), ["fgsm"], **given)
        drawn = console.file.getvalue()
        assert ("robust accuracy: fgsm, " in drawn) is shown
        assert ("100%" in drawn) is shown
    isthmus.audit(model, images, labels, Linf(0.1), ["accuracy"], progress=shown)
    assert (": accuracy" in console.file.getvalue()) is shown
    assert capsys.readouterr() == ("", "")


def test_a_results_images_and_labels_are_verified_as_arrays_too(tmp_path):
    model, images, labels = subject()
    result = robust_accuracy(model, images, labels, Linf(0.1), ["fgsm"])
    assert isthmus.verify(result, model, images=images.numpy(), labels=labels.tolist()).agrees


@pytest.mark.parametrize(
    "suite", [pytest.param("standard", marks=pytest.mark.slow), ["fgsm", "pgd:20"], ["square:300"], "fast"]
)
def test_the_queries_expected_are_about_those_of_an_image_that_withstands(suite):
    model, images, _ = subject()
    images = images.repeat(8, 1, 1, 1)  # enough for the fractions of `fast`
    labels = model(images).argmax(1)
    spent = robust_accuracy(model, images, labels, Linf(1e-6), suite)
    assert spent.accuracy == 1.0
    each = (spent.forward_passes + spent.backward_passes) / len(images)
    assert 0.5 * each <= expected_queries(suite, Linf(1e-6), 3) <= 6 * each
