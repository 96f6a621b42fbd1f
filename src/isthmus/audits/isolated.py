"""A model in a process of its own, so that it can only choose its logits, and nothing of what is done with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.audits.model_process import as_text, read, write
from isthmus.audits.target import ModelSource
from isthmus.core.errors import ModelError

_MOST_CLASSES = 2**20


class _Process:
    """The other process, and the messages to it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.dropped: list[int] = []

    def ask(self, header: dict[str, Any] | None, body: bytes = b"", most: int = 0) -> tuple[dict[str, Any], bytes]:
        """The answer to a query; to None, the greeting.

        Raises:
            ModelError: the model cannot be loaded or fails, or its process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            if header is not None:
                drop, self.dropped = self.dropped, []
                write(self._process.stdin, header | {"drop": drop}, body)  # type: ignore[arg-type]
            answer, numbers = read(self._process.stdout, most)  # type: ignore[arg-type]
        except (OSError, EOFError):
            code = self._process.wait()
            raise ModelError(f"The process of the model ended with exit code {code}; see its output above.") from None
        except ValueError as error:
            raise ModelError(f"The process of the model does not answer as it should: {error}.") from None
        if "error" in answer:
            raise ModelError(str(answer["error"]))
        return answer, numbers


class IsolatedModel(nn.Module):
    """A model that another process evaluates, in float32 and without gradients.

    Attributes:
        fingerprint: SHA-256 of the model's class name, parameters and buffers, as its process states it.
    """

    def __init__(self, process: _Process, fingerprint: str, number: int = 0) -> None:
        super().__init__()
        self._process, self._number, self.fingerprint = process, number, fingerprint

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The logits that the other process returns."""
        n = len(images)
        body = images.detach().cpu().float().contiguous().numpy().tobytes()
        header = {"op": "logits", "model": self._number, "shape": list(images.shape)}
        _, numbers = self._process.ask(header, body, 4 * n * _MOST_CLASSES)
        if len(numbers) % (4 * n) or not numbers:
            raise ModelError(f"The process of the model returned {len(numbers)} bytes of logits for {n} images.")
        return torch.from_numpy(np.frombuffer(numbers, np.float32).reshape(n, -1).copy()).to(images.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> IsolatedModel:
        answer, _ = self._process.ask({"op": "copy", "model": self._number})
        return IsolatedModel(self._process, self.fingerprint, int(answer["model"]))

    def __del__(self) -> None:
        if getattr(self, "_number", 0):  # sent with the next query: this may run in the middle of one
            self._process.dropped.append(self._number)


@contextmanager
def isolated(source: ModelSource) -> Iterator[IsolatedModel]:
    """Inside, a model that another process has loaded. This process runs none of the model's code.

    The other process has the rights of the user, and the same environment and folder. It cannot reach into this
    process by Python; it may do whatever else a program of the user may.

    Raises:
        ModelError: the model cannot be loaded.
    """
    command = [sys.executable, "-m", "isthmus.audits.model_process", as_text(source)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as running:
        try:
            process = _Process(running)
            greeting, _ = process.ask(None)
            yield IsolatedModel(process, str(greeting.get("fingerprint")))
        finally:
            running.kill()
