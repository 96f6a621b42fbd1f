"""A model starts from pretrained weights as far as they fit, and says what did not."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import isthmus
from isthmus.core.errors import FileError, ModelError
from isthmus.models.pretrained import initialise


def backbone(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8))
    layers.features = 8
    return layers


def model(seed: int = 0, num_classes: int = 3):
    return isthmus.bottleneck(backbone(seed), num_classes, "vib", dim=2)


def save(tmp_path, state, name="weights.pt"):
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    return str(path)


SOURCE = backbone(seed=1).state_dict()
FORMS = {
    "state dict": SOURCE,
    "with its head": SOURCE | {"head.weight": torch.zeros(1000, 8)},
    "lightning": {"state_dict": {f"model.{name}": value for name, value in SOURCE.items()}, "epoch": 3},
    "parallel": {f"module.{name}": value for name, value in SOURCE.items()},
    "encoder and decoder": {f"encoder.{name}": value for name, value in SOURCE.items()}
    | {"decoder.0.weight": torch.zeros(4, 4)},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_a_backbone_are_found_in_every_form(tmp_path, form):
    target = model()
    rest = {name: value.clone() for name, value in target.state_dict().items() if not name.startswith("backbone.")}
    found = initialise(target, save(tmp_path, FORMS[form]))
    assert (found.part, found.loaded, found.missing, found.other_shape) == ("backbone", len(SOURCE), (), ())
    assert all(torch.equal(value, SOURCE[name]) for name, value in target.backbone.state_dict().items())
    assert all(torch.equal(target.state_dict()[name], value) for name, value in rest.items())
    assert bool(found.report()) == (form == "with its head")


def test_a_partial_fit_is_reported(tmp_path):
    state = {name: value for name, value in SOURCE.items() if name != "0.bias"}
    state |= {"4.weight": torch.zeros(5, 144), "fc.bias": torch.zeros(10)}
    target = model()
    before = {name: value.clone() for name, value in target.backbone.state_dict().items()}
    found = initialise(target, save(tmp_path, state, "weights.safetensors"))
    assert (found.missing, found.other_shape, found.unexpected) == (("0.bias",), ("4.weight",), ("fc.bias",))
    assert found.loaded == len(SOURCE) - 2
    after = target.backbone.state_dict()
    assert {name for name in after if torch.equal(after[name], before[name])} >= {"0.bias", "4.weight"}
    assert torch.equal(after["0.weight"], SOURCE["0.weight"])
    assert "missing in it: 0.bias; of another shape: 4.weight; not in the model: fc.bias." in found.report()


def test_weights_of_a_whole_model_keep_the_label_frequencies_of_this_run(tmp_path):
    source = isthmus.bottleneck(backbone(1), 3, "vib", dim=2, class_counts=[8, 1, 1])
    target = model()
    prior = target.log_prior.clone()
    found = initialise(target, save(tmp_path, source.state_dict()))
    assert (found.part, found.report()) == ("model", "")
    assert torch.equal(target.log_prior, prior)
    assert torch.equal(target.classifier.weight, source.classifier.weight)


def test_another_number_of_classes_keeps_the_new_head(tmp_path):
    found = initialise(model(), save(tmp_path, model(1, num_classes=7).state_dict()))
    assert set(found.other_shape) == {"classifier.weight", "classifier.bias"}


def test_weights_that_do_not_fit_at_all_are_an_error(tmp_path):
    with pytest.raises(
        ModelError, match=r"No tensor of .* it has blocks.weight, and the backbone has 0.weight, 0.bias"
    ):
        initialise(model(), save(tmp_path, {"blocks.weight": torch.zeros(2)}))
    with pytest.raises(FileError, match="There are no weights"):
        initialise(model(), str(tmp_path / "none.pt"))


def test_a_file_that_could_run_code_is_refused(tmp_path):
    with pytest.raises(FileError, match="could run code"):
        initialise(model(), save(tmp_path, backbone()))
