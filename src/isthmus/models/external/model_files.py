"""Whole models in files: TorchScript, ``torch.export`` and ONNX."""

from __future__ import annotations

import logging
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import FileError, ModelError, brief
from isthmus.models.external.black_box import BlackBox

log = logging.getLogger(__name__)

_SUFFIXES = (".onnx", ".pt2", ".pt", ".pth", ".ts", ".torchscript")
_SAME = 1e-3
"""Largest difference of a conversion's logits from ONNX Runtime's, as a fraction of their largest absolute value."""


def is_model_file(name: str) -> bool:
    """Whether a name is that of a file that may hold a model: by its suffix."""
    return Path(name).suffix.lower() in _SUFFIXES


def load(name: str) -> nn.Module:
    """Load the model in a file, on the CPU.

    Raises:
        FileError: there is no such file, or it holds something else.
        ModelError: the model is not one from images to logits.
    """
    path = Path(name)
    if not path.is_file():
        raise FileError(f"There is no model file {name}.")
    if path.suffix.lower() == ".onnx":
        return _onnx(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise FileError(f"{name} is not readable as a model ({brief(error)}).") from None
    inner = {entry.partition("/")[2] for entry in names}
    try:
        if any(entry.startswith("models/") for entry in inner):
            return _exported(path)
        if any(entry.startswith("code/") for entry in inner):
            return _script(path)
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise FileError(f"{name} cannot be loaded: {brief(error)}.") from error
    raise FileError(
        f"{name} was written by torch.save: it holds weights, or a pickled model, which is not loaded since that can "
        f"run code. Name the function that builds the model, and give the weights: --model package.module:function "
        f"--weights {name}."
    )


def _script(path: Path) -> nn.Module:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # of TorchScript as a whole; files of it remain
            warnings.simplefilter("ignore", category)
        model: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return model.eval()


# --- torch.export ---


def _exported(path: Path) -> nn.Module:
    program = torch.export.load(path)
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1:
        raise ModelError(f"{path} takes {len(inputs)} inputs; a classifier takes a batch of images.")
    rows = inputs[0].meta["val"].shape[0]
    model = _Frozen(program.module())
    return FixedBatch(model, rows) if isinstance(rows, int) else model


class _Frozen(nn.Module):
    """A module of ``torch.export``, whose mode cannot be changed, with the ``eval`` and ``train`` of others."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> _Frozen:
        """Set the flag alone: an exported program stays in the mode that it was exported in."""
        self.training = mode
        return self

    def forward(self, images: Float[Tensor, "n c h w"]) -> Any:
        """What the program returns."""
        return self.program(images)


class FixedBatch(nn.Module):
    """A view of a model that takes batches of one size only: the last part of a batch is filled with zeros.

    Args:
        model: the model.
        size: its batch size.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The model's logits, for a batch of any size."""
        found = []
        for part in torch.split(images, self.size):
            filled = torch.cat([part, part.new_zeros(self.size - len(part), *part.shape[1:])])
            found.append(_first(self.model(filled))[: len(part)])
        return torch.cat(found)


def _first(answer: Any) -> Tensor:
    return answer if isinstance(answer, Tensor) else next(iter(answer))


# --- ONNX ---


class OnnxSession:
    """An ONNX file in ONNX Runtime, as a function from images to the first output. It can be copied and pickled.

    Args:
        content: the file.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._start()

    def _start(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    def __getstate__(self) -> bytes:
        return self.content

    def __setstate__(self, content: bytes) -> None:
        self.content = content
        self._start()

    @property
    def shape(self) -> list[Any]:
        """Shape of the input: numbers, or names where any size is possible."""
        return list(self.session.get_inputs()[0].shape)

    @property
    def bytes_in(self) -> bool:
        """Whether the input is 8-bit integers."""
        return str(self.session.get_inputs()[0].type) == "tensor(uint8)"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The first output for images in the file's own layout."""
        given = (images * 255).round().astype(np.uint8) if self.bytes_in else images
        name = self.session.get_inputs()[0].name
        return np.asarray(self.session.run(None, {name: given})[0])


class Layout(nn.Module):
    """A model that takes its channels last, or its pixels in one row: images N×C×H×W are rearranged first.

    Args:
        model: the model.
        kind: "channels last" or "flat".
    """

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, images: Float[Tensor, "n c h w"]) -> Any:
        """The model's output."""
        return self.model(images.flatten(1) if self.kind == "flat" else images.permute(0, 2, 3, 1).contiguous())


def _onnx(path: Path) -> nn.Module:
    content = path.read_bytes()
    try:
        session = OnnxSession(content)
    except ImportError:
        raise ModelError("An ONNX model needs ONNX Runtime: pip install 'isthmus[onnx]'.") from None
    except Exception as error:  # onnxruntime has exceptions of its own
        raise FileError(f"{path} is not a readable ONNX model ({brief(error)}).") from None
    inputs = session.session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) not in (2, 4):
        shapes = ", ".join(f"{each.name} {each.shape}" for each in inputs)
        raise ModelError(f"{path} takes {shapes}; a classifier takes one batch of images, N×C×H×W or N×H×W×C.")
    shape = session.shape
    model, why = _converted(path, session)
    if model is None:
        log.warning(
            "%s is audited as a black box, since %s: gradient-based attacks do not apply, and a robust accuracy under "
            "score-based attacks alone is a weaker statement.",
            path,
            why,
        )
        model = BlackBox(session)
    if isinstance(shape[0], int):
        model = FixedBatch(model, shape[0])
    if len(shape) == 2:
        model = Layout(model, "flat")
    elif shape[3] in (1, 3) and shape[1] not in (1, 3):
        model = Layout(model, "channels last")
    return model.eval()


def _converted(path: Path, session: OnnxSession) -> tuple[nn.Module | None, str]:
    """The model as a torch module with the same logits as in ONNX Runtime; or None, and why there is none."""
    if session.bytes_in:
        return None, "its input is 8-bit integers"
    try:
        import onnx2torch
    except ImportError:
        return None, "onnx2torch is not installed (pip install onnx2torch)"
    try:
        model = onnx2torch.convert(str(path)).eval()
        generator = np.random.default_rng(0)
        sides = [side if isinstance(side, int) else 2 if at == 0 else 32 for at, side in enumerate(session.shape)]
        images = generator.random(sides, dtype=np.float32)
        with torch.no_grad():
            ours = _first(model(torch.from_numpy(images))).numpy()
        theirs = session(images)
    except Exception as error:  # a conversion may raise anything
        return None, f"it cannot be converted to torch ({brief(error, 120)})"
    if ours.shape != theirs.shape or np.abs(ours - theirs).max() > _SAME * np.abs(theirs).max():
        return None, "its conversion to torch gives other logits"
    return model, ""
