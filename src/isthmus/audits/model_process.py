"""The process that holds a model and answers queries; see :mod:`isthmus.audits.isolated`."""

from __future__ import annotations

import copy
import json
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.audits.target import ModelSource, named_model
from isthmus.core.errors import brief
from isthmus.models.identity import fingerprint
from isthmus.models.preprocessing import Preprocessing

LONGEST = 2**20
"""Most bytes of a header."""
_SIZES = struct.Struct(">QQ")


def write(stream: BinaryIO, header: dict[str, Any], body: bytes = b"") -> None:
    """Write one message: a JSON header, and numbers."""
    text = json.dumps(header).encode()
    stream.write(_SIZES.pack(len(text), len(body)) + text)
    stream.write(body)
    stream.flush()


def read(stream: BinaryIO, most: int) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    Args:
        most: bytes of numbers that are accepted.

    Raises:
        EOFError: the other process has closed the stream.
        ValueError: it is no message, or too long.
    """
    sizes = _exactly(stream, _SIZES.size)
    header, body = _SIZES.unpack(sizes)
    if header > LONGEST or body > most:
        raise ValueError(f"a message of {header} and {body} bytes")
    content = json.loads(_exactly(stream, header))
    if not isinstance(content, dict):
        raise ValueError("a message without a header")
    return content, _exactly(stream, body)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    parts = []
    while count > 0:
        part = stream.read(min(count, 2**24))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def as_text(source: ModelSource) -> str:
    """A source as the argument of this process."""
    facts = {
        **asdict(source),
        **{name: str(path) for name in ("run", "weights") if (path := getattr(source, name)) is not None},
    }
    return json.dumps({name: value for name, value in facts.items() if name not in ("data", "count", "out")})


def _source(text: str) -> ModelSource:
    facts = json.loads(text)
    paths = {name: Path(facts[name]) for name in ("run", "weights") if facts[name] is not None}
    given = facts.pop("preprocessing")
    size = tuple(given["size"]) if given["size"] is not None else None
    return ModelSource(**(facts | paths), preprocessing=Preprocessing(tuple(given["mean"]), tuple(given["std"]), size))


def _answer(models: dict[int, nn.Module], header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """The answer to a query: logits, or the number of a new copy of the model."""
    for number in header.get("drop", ()):
        models.pop(number, None)
    model = models[header["model"]]
    if header["op"] == "copy":
        number = max(models) + 1
        models[number] = copy.deepcopy(model)
        return {"model": number}, b""
    images = torch.from_numpy(np.frombuffer(body, np.float32).reshape(header["shape"]).copy())
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    images = images.to(first.device) if first is not None else images
    keys = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    logits = CountedModel(model).logits(images, keys).cpu().numpy()
    return {"shape": logits.shape}, logits.tobytes()


def serve(text: str, given: BinaryIO, answers: BinaryIO) -> None:
    """Load a model, state its fingerprint, and answer queries until the stream ends."""

    def attempt(act: Callable[[], tuple[dict[str, Any], bytes]]) -> bool:
        try:
            header, body = act()
        except (Exception, SystemExit) as error:  # a user's model may do anything
            write(answers, {"error": brief(error)})
            return False
        write(answers, header, body)
        return True

    models: dict[int, nn.Module] = {}

    def load() -> tuple[dict[str, Any], bytes]:
        models[0] = named_model(_source(text)).model.eval()
        return {"fingerprint": fingerprint(models[0])}, b""

    if not attempt(load):
        return
    while True:
        try:
            header, body = read(given, sys.maxsize)
        except EOFError:
            return
        attempt(lambda header=header, body=body: _answer(models, header, body))  # type: ignore[misc]


def main() -> None:
    """Serve on the standard streams; what the model prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
