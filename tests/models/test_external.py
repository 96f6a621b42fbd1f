"""Models from elsewhere: what a name may be, and that each gives the logits of the original."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import isthmus
from isthmus.audits import classifier
from isthmus.core.errors import ConfigError, FileError, ModelError
from isthmus.models import preprocessing
from isthmus.models.external import load_model, load_weights, title

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def linear(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def network(classes=10):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, classes)
    return nn.Sequential(*layers).eval()


def gradient(model, images=IMAGES):
    leaf = images.clone().requires_grad_()
    (found,) = torch.autograd.grad((model(leaf) ** 2).sum(), leaf)
    return found


class TestFunctions:
    @pytest.fixture(autouse=True)
    def _modules(self, tmp_path, monkeypatch):
        (tmp_path / "some_nets.py").write_text(
            "from torch import nn\n"
            "def build(width=64, classes=10):\n    return nn.Sequential(nn.Flatten(), nn.Linear(width, classes))\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        yield
        sys.modules.pop("some_nets", None)

    @pytest.mark.parametrize("name", ["some_nets:build", "some_nets.py:build", "./some_nets.py:build"])
    def test_a_module_or_a_file(self, name):
        assert load_model(name)(IMAGES).shape == (5, 10)

    def test_options_follow_the_name(self):
        assert load_model("some_nets:build,classes=3")(IMAGES).shape == (5, 3)
        with pytest.raises(ModelError, match="depth"):
            load_model("some_nets:build,depth=3")

    def test_a_file_whose_name_is_taken(self, tmp_path):
        (tmp_path / "json.py").write_text("def build(): pass\n")
        with pytest.raises(ModelError, match="the name 'json' is taken"):
            load_model("json.py:build")

    def test_missing_files(self):
        for name in ("nothing.py:build", "nothing.onnx", "nothing.pt2", "nothing.pt"):
            with pytest.raises(FileError, match="There is no"):
                load_model(name)

    def test_a_scikit_learn_classifier_of_a_function(self, tmp_path):
        (tmp_path / "some_trees.py").write_text(
            "from sklearn.datasets import load_digits\nfrom sklearn.tree import DecisionTreeClassifier\n"
            "def build():\n    images, labels = load_digits(return_X_y=True)\n"
            "    return DecisionTreeClassifier(random_state=0).fit(images / 16, labels)\n"
        )
        images, labels = load_digits(return_X_y=True)
        model = load_model("some_trees.py:build")
        z = model(torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8))
        assert (z.argmax(1).numpy() == labels).mean() > 0.99


class TestWeights:
    def test_round_trip(self, tmp_path):
        source, target = linear(), linear()
        save_file(source.state_dict(), tmp_path / "w.safetensors")
        load_weights(target, tmp_path / "w.safetensors")
        assert classifier.fingerprint(source) == classifier.fingerprint(target)

    def test_other_shapes_and_names_are_named(self, tmp_path):
        save_file(linear(7).state_dict(), tmp_path / "w.safetensors")
        with pytest.raises(ModelError, match=r"1.weight has shape \(7, 64\), the model's has \(10, 64\)"):
            load_weights(linear(), tmp_path / "w.safetensors")
        save_file({"other": torch.zeros(1)}, tmp_path / "w.safetensors")
        with pytest.raises(ModelError, match="1.weight is missing; 1.bias is missing; other is not in the model"):
            load_weights(linear(), tmp_path / "w.safetensors")

    def test_truncated_pickled_and_missing_files_are_explained(self, tmp_path):
        path = tmp_path / "w.safetensors"
        with pytest.raises(FileError, match="no weights at"):
            load_weights(linear(), path)
        save_file(linear().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(FileError, match="neither a readable safetensors file"):
            load_weights(linear(), path)

    @pytest.mark.parametrize(("prefix", "inner"), [("net.", ""), ("", "net.")])
    def test_a_prefix_before_every_name_is_named(self, tmp_path, prefix, inner):
        model = linear() if not inner else nn.ModuleDict({"net": linear()})
        save_file({prefix + name: value for name, value in linear().state_dict().items()}, tmp_path / "w.safetensors")
        said = f"Remove '{prefix}' from" if prefix else f"Add '{inner}' to"
        with pytest.raises(ModelError, match=f"{said} the beginning of the file's names, and they fit"):
            load_weights(model, tmp_path / "w.safetensors")

    def test_a_shared_weight_needs_one_of_its_names(self, tmp_path):
        def tied():
            model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
            model[2].weight = model[0].weight
            return model

        source, target = tied(), tied()
        save_model(source, tmp_path / "w.safetensors")  # without the second name
        load_weights(target, tmp_path / "w.safetensors")
        assert classifier.fingerprint(source) == classifier.fingerprint(target)
        assert target[2].weight is target[0].weight

    def test_quantised_weights_are_not_taken_for_floats(self, tmp_path):
        state = linear().state_dict()
        save_file(state | {"1.weight": (state["1.weight"] * 100).to(torch.int8)}, tmp_path / "w.safetensors")
        with pytest.raises(ModelError, match=r"1.weight is torch.int8, the model's is torch.float32; convert it first"):
            load_weights(linear(), tmp_path / "w.safetensors")
        save_file({name: value.half() for name, value in state.items()}, tmp_path / "w.safetensors")
        load_weights(linear(), tmp_path / "w.safetensors")


class TestWrongNames:
    @pytest.fixture(autouse=True)
    def _package(self, tmp_path, monkeypatch):
        (tmp_path / "their_nets.py").write_text(
            "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
            "def wrong(): return 3\n"
            "def needs(width): return nn.Linear(width, 2)\n"
            "def breaks(): raise AssertionError('no weights here')\n"
            "def leaves(): raise SystemExit(3)\n"
            "number = 3\n"
        )
        (tmp_path / "bad_nets.py").write_text("def build(:\n")
        (tmp_path / "failing_nets.py").write_text("raise OSError('no such mount')\n")
        (tmp_path / "leaving_nets.py").write_text("import sys\nsys.exit(1)\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("their_nets", "package.module:function"),
            (".", "A run folder is given without --model"),
            ("their_nets:buld", "Cannot find 'their_nets:buld': AttributeError: .*'buld'.$"),
            ("no_nets:build", "Cannot find .* in the current folder or in an installed package"),
            ("folder/their_nets:build", "Cannot find"),
            ("their_nets:wrong", "returned int"),
            ("their_nets:needs", r"needs\(\) failed: TypeError: .*without arguments"),
            ("their_nets:breaks", r"breaks\(\) failed: AssertionError: no weights here"),
            ("their_nets:leaves", r"leaves\(\) failed: ModelError: The model ends the program"),
            ("their_nets:number", "is int; give a function"),
            (".their_nets:build", "without a leading dot"),
            ("bad_nets:build", "Importing 'bad_nets' failed: SyntaxError"),
            ("failing_nets:build", "Importing 'failing_nets' failed: OSError: no such mount"),
            (
                "leaving_nets:build",
                "Importing 'leaving_nets' failed: ModelError: The model ends the program .*: exit code 1",
            ),
        ],
    )
    def test_wrong_paths_are_explained(self, path, message):
        with pytest.raises(ModelError, match=message):
            load_model(path)


class TestStateDicts:
    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda state: state,
            lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
            lambda state: {"module." + name: value for name, value in state.items()},
            lambda state: {"model": {"_orig_mod.module." + name: value for name, value in state.items()}},
        ],
    )
    def test_state_dicts_of_torch_save(self, tmp_path, wrap, old):
        source, target = network(), network()
        with torch.no_grad():
            for value in source.parameters():
                value.add_(0.1)
        torch.save(wrap(source.state_dict()), tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
        load_weights(target, tmp_path / "w.pt")
        torch.testing.assert_close(target(IMAGES), source(IMAGES), rtol=0, atol=0)

    def test_several_that_fit_are_not_chosen_from(self, tmp_path):
        state = network().state_dict()
        torch.save({"model": state, "ema": state}, tmp_path / "w.pt")
        with pytest.raises(FileError, match=r"\['model'\], \['ema'\]"):
            load_weights(network(), tmp_path / "w.pt")

    def test_a_pickled_model_is_not_loaded(self, tmp_path):
        torch.save(network(), tmp_path / "w.pt")
        with pytest.raises(FileError, match="could run code"):
            load_weights(network(), tmp_path / "w.pt")
        with pytest.raises(FileError, match="pickled model"):
            load_model(str(tmp_path / "w.pt"))

    def test_code_in_a_pickle_does_not_run(self, tmp_path):
        ran = tmp_path / "ran"

        class Bomb:
            def __reduce__(self):
                return open, (str(ran), "w")

        torch.save({"state_dict": network().state_dict(), "more": Bomb()}, tmp_path / "w.pt")
        with pytest.raises(FileError, match="could run code"):
            load_weights(network(), tmp_path / "w.pt")
        assert not ran.exists()


class TestFiles:
    @pytest.mark.filterwarnings("ignore:.*torch.jit")
    def test_torchscript(self, tmp_path):
        for name in ("m.pt", "m.ts"):
            torch.jit.script(network()).save(tmp_path / name)
            model = load_model(str(tmp_path / name))
            torch.testing.assert_close(model(IMAGES), network()(IMAGES))
            torch.testing.assert_close(gradient(model), gradient(network()))

    @pytest.mark.parametrize("dynamic", [False, True])
    def test_torch_export(self, tmp_path, dynamic):
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        torch.export.save(torch.export.export(network(), (IMAGES[:2],), dynamic_shapes=shapes), tmp_path / "m.pt2")
        model = load_model(str(tmp_path / "m.pt2"))
        torch.testing.assert_close(model(IMAGES), network()(IMAGES))
        torch.testing.assert_close(gradient(model), gradient(network()))
        labels = network()(IMAGES).argmax(1)
        result = isthmus.robust_accuracy(model, IMAGES, labels, "linf:0.3", ["pgd:10"])
        assert result.clean_accuracy == 1
        assert result.accuracy < 1

    @pytest.mark.filterwarnings("ignore:.*torch.jit")
    def test_other_files(self, tmp_path):
        (tmp_path / "m.pt2").write_bytes(b"not an archive")
        with pytest.raises(FileError, match="not readable as a model"):
            load_model(str(tmp_path / "m.pt2"))
        torch.jit.script(network()).save(tmp_path / "m.pt")
        with pytest.raises(ModelError, match="whole model"):
            load_model(str(tmp_path / "m.pt"), "w.safetensors")


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime")
class TestOnnx:
    """Files written by hand with the onnx package, since torch's exporter needs another one."""

    def file(self, path, *, batch="n", softmax=False, channels_last=False):
        onnx = pytest.importorskip("onnx")
        helper, tensor = onnx.helper, onnx.numpy_helper.from_array
        model = network()
        weight, bias = (p.detach().numpy() for p in (model[4].weight, model[4].bias))
        shape = [batch, 8, 8, 1] if channels_last else [batch, 1, 8, 8]
        nodes = [
            helper.make_node("Flatten", ["images"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ]
        if softmax:
            nodes.append(helper.make_node("Softmax", ["logits"], ["out"], axis=1))
        out = "out" if softmax else "logits"
        graph = helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, [batch, 10])],
            [tensor(weight[:, :64].copy(), "weight"), tensor(bias, "bias")],
        )
        whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(whole, path)
        return lambda images: images.flatten(1) @ torch.tensor(weight[:, :64]).T + torch.tensor(bias)

    @pytest.mark.parametrize("batch", ["n", 1, 2])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_logits(self, tmp_path, batch, channels_last, caplog):
        expected = self.file(tmp_path / "m.onnx", batch=batch, channels_last=channels_last)
        model = load_model(str(tmp_path / "m.onnx"))
        torch.testing.assert_close(model(IMAGES), expected(IMAGES))
        if importlib.util.find_spec("onnx2torch") is None:  # it is in make test-vision
            assert "black box" in caplog.text
        else:
            assert "black box" not in caplog.text
            torch.testing.assert_close(gradient(model), gradient(expected))

    def test_it_is_attacked(self, tmp_path):
        expected = self.file(tmp_path / "m.onnx")
        labels = expected(IMAGES).argmax(1)
        result = isthmus.robust_accuracy(
            load_model(str(tmp_path / "m.onnx")), IMAGES, labels, "linf:0.5", ["square:300"]
        )
        assert result.clean_accuracy == 1
        assert result.accuracy < 1

    def test_a_damaged_file(self, tmp_path):
        (tmp_path / "m.onnx").write_bytes(b"no model")
        with pytest.raises(FileError, match="not a readable ONNX model"):
            load_model(str(tmp_path / "m.onnx"))


class TestHubs:
    """The hubs' own models are tested where timm and torchvision are installed: make test-vision."""

    def test_missing_libraries_say_what_to_install(self, monkeypatch):
        for name in ("timm", "torchvision", "transformers", "robustbench"):
            monkeypatch.setitem(sys.modules, name, None)
        for spec, command in (
            ("timm:resnet18", r"isthmus\[vision\]"),
            ("torchvision:resnet18", r"isthmus\[vision\]"),
            ("hf:some/model", r"isthmus\[hf\]"),
            ("robustbench:Standard", "pip install robustbench"),
        ):
            with pytest.raises(ModelError, match=command):
                load_model(spec)

    def test_robustbench_is_asked_by_data_set_and_threat(self, monkeypatch):
        asked = []
        package, utils = ModuleType("robustbench"), ModuleType("robustbench.utils")
        utils.load_model = lambda name, dataset, threat_model: asked.append((name, dataset, threat_model)) or network()
        monkeypatch.setitem(sys.modules, "robustbench", package)
        monkeypatch.setitem(sys.modules, "robustbench.utils", utils)
        load_model("robustbench:Standard")
        load_model("robustbench:Rebuffi2021/cifar100/L2")
        assert asked == [("Standard", "cifar10", "Linf"), ("Rebuffi2021", "cifar100", "L2")]


class TestPreprocessing:
    def test_normalisation_by_hand(self):
        images = torch.rand(2, 3, 4, 4)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        expected = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        torch.testing.assert_close(isthmus.normalized(nn.Identity(), mean, std)(images), expected)
        torch.testing.assert_close(isthmus.normalized(nn.Identity(), "imagenet")(images), expected)
        torch.testing.assert_close(isthmus.normalized(nn.Identity(), "0..255")(images), 255 * images)
        torch.testing.assert_close(isthmus.normalized(nn.Identity(), "-1..1")(images), 2 * images - 1)

    def test_resizing_passes_gradients(self):
        model = preprocessing.preprocessing_of(size=(4, 6)).before(nn.Identity())
        leaf = IMAGES.clone().requires_grad_()
        assert model(leaf).shape == (5, 1, 4, 6)
        (found,) = torch.autograd.grad(model(leaf).sum(), leaf)
        assert (found > 0).all()

    def test_nothing_to_do_leaves_the_model(self):
        model = network()
        assert preprocessing.preprocessing_of().before(model) is model

    @pytest.mark.parametrize(
        "given",
        [{"mean": "imagent"}, {"mean": 0.5}, {"std": 0.5}, {"mean": 0, "std": 0}, {"mean": "cifar10", "std": 1}],
    )
    def test_impossible_ones(self, given):
        with pytest.raises(ConfigError):
            isthmus.normalized(network(), **({"mean": None} | given))


class Boxed(nn.Module):
    """A network whose logits are inside something else."""

    def __init__(self, box):
        super().__init__()
        self.network, self.box = network(), box

    def forward(self, images):
        return self.box(self.network(images))


ROBUSTNESS = {"name": "robustness", "levels": 1, "attacks": ["apgd:10"]}


class TestOutputs:
    @pytest.mark.parametrize(
        "box",
        [
            lambda z: {"logits": z, "features": z[:, :2]},
            lambda z: {"scores": z, "loss": z.mean()},
            lambda z: (z, None),
            lambda z: [z.mean(), z],
            lambda z: SimpleNamespace(logits=z),
        ],
    )
    def test_logits_inside_an_output(self, box):
        labels = network()(IMAGES).argmax(1)
        plain = isthmus.robust_accuracy(network(), IMAGES, labels, "linf:0.1", ["pgd:5"])
        boxed = isthmus.robust_accuracy(Boxed(box), IMAGES, labels, "linf:0.1", ["pgd:5"])
        assert torch.equal(plain.broken, boxed.broken)
        audit = isthmus.audit(Boxed(box), IMAGES, labels, "linf:0.1", ["accuracy", ROBUSTNESS])
        assert audit.results["accuracy"].status != "error"
        assert audit.results["robustness"].status != "error"

    def test_several_that_could_be_logits_are_an_error(self):
        with pytest.raises(ModelError, match="tuple"):
            isthmus.robust_accuracy(Boxed(lambda z: (z, z[:, :3])), IMAGES, [0] * 5, "linf:0.1", ["pgd:5"])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, dtype):
        model = network().to(dtype)
        labels = model(IMAGES.to(dtype)).argmax(1)
        result = isthmus.robust_accuracy(model, IMAGES, labels, "linf:0.3", ["pgd:10"])
        assert result.clean_accuracy == 1
        assert result.accuracy < 1
        audit = isthmus.audit(model, IMAGES, labels, "linf:0.1", ["accuracy", ROBUSTNESS])
        assert audit.results["robustness"].status != "error"

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of dynamo
    @pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
    def test_wrapped_models(self, wrap):
        labels = network()(IMAGES).argmax(1)
        plain = isthmus.robust_accuracy(network(), IMAGES, labels, "linf:0.1", ["pgd:5"])
        wrapped = isthmus.robust_accuracy(wrap(network()), IMAGES, labels, "linf:0.1", ["pgd:5"])
        assert torch.equal(plain.broken, wrapped.broken)


class TestBlackBoxes:
    def test_a_function_of_arrays(self):
        model = isthmus.black_box(lambda images: network()(torch.from_numpy(images)).softmax(1).detach().numpy())
        labels = model(IMAGES).argmax(1)
        assert torch.equal(labels, network()(IMAGES).argmax(1))
        result = isthmus.robust_accuracy(model, IMAGES, labels, "linf:0.5", ["square:300"])
        assert result.clean_accuracy == 1
        assert result.accuracy < 1

    @pytest.mark.parametrize("kind", [LogisticRegression, LinearSVC, DecisionTreeClassifier])
    def test_scikit_learn(self, kind):
        rows, labels = load_digits(return_X_y=True)
        fitted = kind(random_state=0).fit(rows / 16, labels)
        images = torch.tensor(rows / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)[:100]
        assert np.array_equal(isthmus.black_box(fitted)(images).argmax(1).numpy(), fitted.predict(rows[:100] / 16))

    def test_other_classes_and_other_things(self):
        rows, labels = load_digits(return_X_y=True)
        fitted = DecisionTreeClassifier(random_state=0).fit(rows, labels + 1)
        for given in (fitted, network(), "model"):
            with pytest.raises(ModelError):
                isthmus.black_box(given)


@pytest.mark.parametrize(
    ("spec", "weights", "expected"),
    [
        ("nets:build", None, "nets.build"),
        ("my/nets.py:build", "runs/w.pt", "nets.build-w"),
        ("hf:google/vit-base", None, "vit-base"),
        ("m.onnx", None, "m.onnx"),
        ("timm:resnet18,num_classes=10", None, "timm.resnet18-num_classes-10"),
    ],
)
def test_titles(spec, weights, expected):
    assert title(spec, weights) == expected


@pytest.mark.filterwarnings("ignore:.*quant:UserWarning", "ignore:.*quant:DeprecationWarning")
def test_quantised_models_are_attacked_by_score():
    if not torch.backends.quantized.supported_engines:
        pytest.skip("torch has no engine for quantised models here")
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval())
    labels = model(IMAGES).argmax(1)
    result = isthmus.robust_accuracy(model, IMAGES, labels, "linf:0.5", ["square:300"])
    assert result.clean_accuracy == 1
    assert result.accuracy < 1
