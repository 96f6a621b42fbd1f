"""What people type by mistake is refused in a sentence that names it: see :mod:`tests.fuzzing.wrong_uses`."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import isthmus
from isthmus import attacks, compat
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.data import loading
from isthmus.data.images import as_float
from isthmus.training.loop import Trainer
from tests.fuzzing import wrong_uses
from tests.fuzzing.sound import RECIPE
from tests.fuzzing.trials import LONGEST, Refused, assert_sentence, command


@pytest.fixture(scope="module")
def names(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A working directory with what the lines name, and the names that a call starts with."""
    folder = tmp_path_factory.mktemp("wrong")
    shutil.copytree(run, folder / "run")
    shutil.copy(run / "witnesses.safetensors", folder / "w.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.delitem(sys.modules, "nets", raising=False)
        _furnish()
        import nets  # type: ignore[import-not-found]

        split = loading.load("digits").test
        model = nets.build().eval()
        yield {
            **{name: getattr(isthmus, name) for name in isthmus.__all__},
            **{each.__name__: each for each in (compat.AutoAttack, compat.benchmark, DataLoader, TensorDataset)},
            "RunOptions": RunOptions,
            "attacks": attacks,
            "loading": loading,
            "torch": torch,
            "nn": nn,
            "nets": nets,
            "model": model,
            "dropped": nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)),
            "x": as_float(split.images[:20]),
            "y": torch.arange(20) % 10,
            "onehot": torch.eye(10)[torch.arange(20) % 10].long(),
        }


def _furnish() -> None:
    """Sound and damaged files."""
    plain = {
        "nets.py": wrong_uses.NETS,
        "syntax.py": "def build(:\n",
        "file": "not what you look for\n",
        "recipe.yaml": yaml.safe_dump(RECIPE),
        "list.yaml": "- seed\n- data\n",
        "tabs.yaml": "data:\n\tname: digits\n",
        "empty.csv": "",
        "columns.csv": "where,what\na.png,1\n",
        "lost.csv": "path,label\nlost.png,1\n",
        **dict.fromkeys(("bad.onnx", "bad.pt", "bad.pt2", "bad.safetensors", "bad.zip", "part"), "no model\n"),
        "model.h5": "HDF",
    }
    for name, text in plain.items():
        Path(name).write_text(text, encoding="utf-8")
    state = {"1.weight": torch.rand(10, 64), "1.bias": torch.rand(10)}
    safetensors.torch.save_file(state, "weights.safetensors")
    torch.save(state, "state.pt")
    for folder, size in (("images", 8), ("mixed", 8), ("broken", 8)):
        for label in range(2):
            for number in range(10):
                path = Path(folder, str(label), f"{number}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (size + (folder == "mixed") * number, size), number * 20).save(path)
    Path("broken/0/0.png").write_bytes(b"no image")
    Path("empty").mkdir()
    Path("flat").mkdir()
    Image.new("L", (8, 8)).save("flat/0.png")


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that is taken by mistake ends at once, and not as a refusal."""

    def fit(*_: object, **__: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(Trainer, "fit", fit)


def _ids(table: str) -> list[Any]:
    return [pytest.param(typed, named, id=f"{area}: {typed}") for area, typed, named in wrong_uses.cases(table)]


def _check(message: str, named: str) -> None:
    """One sentence, or a few, in one line, which name what was given."""
    assert_sentence(message)
    assert message == message.strip(), message
    assert "\n" not in message, message
    assert len(message) < LONGEST / 2, message
    missing = [word for word in named.split() if word not in message]
    assert not missing, f"{missing} not named in: {message}"


def _sentence(said: str) -> str:
    """What an error says: click draws its own in a frame."""
    assert "Traceback" not in said, said
    inside = re.findall(r"^[│|] (.*) [│|]$", said, re.MULTILINE)
    if inside:
        return re.sub(r"\s+", " ", " ".join(line.strip() for line in inside))
    lines = [line for line in said.splitlines() if line.startswith("Error")]
    assert len(lines) == 1, said
    return lines[0]


@pytest.mark.parametrize(("typed", "named"), _ids(wrong_uses.COMMANDS))
def test_a_command_is_refused(names: dict[str, Any], typed: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    with pytest.raises(Refused) as caught:
        command(*shlex.split(typed))
    _check(_sentence(str(caught.value)), named)


@pytest.mark.parametrize(("typed", "named"), _ids(wrong_uses.CALLS))
def test_a_call_is_refused(names: dict[str, Any], typed: str, named: str) -> None:
    with pytest.raises(isthmus.IsthmusError) as caught:
        eval(typed, dict(names))
    _check(str(caught.value), named)


def test_there_are_enough() -> None:
    lines = [*wrong_uses.cases(wrong_uses.COMMANDS), *wrong_uses.cases(wrong_uses.CALLS)]
    assert len({typed for _, typed, _ in lines}) == len(lines) >= 200
