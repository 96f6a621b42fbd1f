"""Weights, checkpoints, witnesses and evaluations from elsewhere: safetensors that lie, and pickles by any name."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor, nn

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.engine.state import EvaluationState, seal
from isthmus.attacks.result import RobustResult
from isthmus.audits import attack_file
from isthmus.audits.target import ModelSource, named_model
from isthmus.cli import attack, verify
from isthmus.data.images import as_float
from isthmus.data.loading import load as load_data
from isthmus.models.external import load_model, load_weights
from isthmus.training import checkpoints
from isthmus.training.run import Run
from isthmus.training.start import train
from tests.fuzzing.hostile import Draw, damaged, forged, joined, parts, pickles, values
from tests.fuzzing.sound import COUNT, RECIPE, SUITE, THREAT
from tests.fuzzing.trials import cases, command, judge, place

DTYPES = [torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64]
STARTED = (".lock", "run.json", "metrics.jsonl")
"""A start is noted before the checkpoint is read; and training that goes on from hostile weights may diverge."""


@st.composite
def tensors(draw: Draw, sound: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors of which some have another type, shape, content or name."""
    found = dict(sound)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(found)))
        value = found[name]
        kind = draw(st.sampled_from(["type", "shape", "more", "fewer", "fill", "drop", "rename", "scalar"]))
        if kind == "type":
            found[name] = value.to(draw(st.sampled_from(DTYPES)))
        elif kind == "shape":
            found[name] = value.reshape(-1) if value.dim() > 1 else value[None]
        elif kind == "more":
            found[name] = torch.cat([value, value]) if value.dim() else value[None]
        elif kind == "fewer":
            found[name] = value[: len(value) // 2] if value.dim() else value
        elif kind == "fill":
            filling = draw(st.sampled_from([-1, 0, 1, 7, 255, 2**31]))
            content = (
                draw(st.sampled_from([float("nan"), float("inf"), -1e30])) if value.is_floating_point() else filling
            )
            found[name] = torch.full_like(value.to(torch.int64) if value.dtype == torch.uint8 else value, content)
        elif kind == "scalar":
            found[name] = torch.zeros((), dtype=value.dtype)
        elif len(found) > 1:
            del found[name]
            if kind == "rename":
                found[draw(st.sampled_from(["__class__", "../../w", "", "model.", "a" * 300, "é"]))] = value
    return {name: value.contiguous().clone() for name, value in found.items()}


@st.composite
def resealed(draw: Draw, sound: bytes, digest: Callable[[dict[str, Tensor], str], str], key: str) -> bytes:
    """What somebody writes who knows the format: other tensors or facts, under a checksum that is right."""
    header, _ = parts(sound)
    metadata = dict(header["__metadata__"])
    named = load_tensors(sound)
    if draw(st.booleans()):
        named = draw(tensors(named))
    else:
        facts = json.loads(metadata["facts"])
        changed = draw(damaged(facts)) if draw(st.integers(0, 9)) else draw(values)
        try:
            metadata["facts"] = json.dumps(changed)
        except (TypeError, ValueError, RecursionError):
            metadata["facts"] = "[" * 5000
    metadata[key] = digest(named, metadata["facts"])
    return save(named, metadata)


@st.composite
def hostile_file(draw: Draw, sound: bytes, marker: Path, careful: st.SearchStrategy[bytes] | None = None) -> bytes:
    kinds = ["forged", "forged", "forged", "pickle", *(["careful"] * 5 if careful is not None else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "pickle":
        return draw(st.sampled_from(pickles(marker)))
    return draw(forged(sound)) if kind == "forged" or careful is None else draw(careful)


# --- weights ---


@given(data=st.data())
@cases(25, 300)
def test_weights_are_loaded_or_refused(run: Path, data: st.DataObject) -> None:
    sound = (run / "weights.safetensors").read_bytes()
    with place() as here:
        careful = tensors(load_tensors(sound)).map(save)
        suffix = data.draw(st.sampled_from(["safetensors", "pt", "pth", "pkl", "ckpt", "npz", "bin"]))
        path = here.write(f"weights.{suffix}", data.draw(hostile_file(sound, here.marker, careful)))
        model = Run(run).load()
        judge("weights", here, lambda: load_weights(model, path))


@given(data=st.data())
@cases(8, 80)
def test_runs_with_foreign_weights_are_loaded_or_refused(run: Path, data: st.DataObject) -> None:
    with place() as here:
        there = Path(shutil.copytree(run, here.folder / "run"))
        sound = (run / "weights.safetensors").read_bytes()
        content = data.draw(hostile_file(sound, here.marker, tensors(load_tensors(sound)).map(save)))
        (there / "weights.safetensors").write_bytes(content)
        judge("weights", here, lambda: Run(there).load())


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.safetensors", "witnesses.safetensors"])
def test_pickles_are_never_opened(run: Path, name: str, number: int) -> None:
    with place() as here:
        there = Path(shutil.copytree(run, here.folder / "run"))
        (there / name).write_bytes(pickles(here.marker)[number])
        acts: dict[str, Callable[[], Any]] = {
            "weights.safetensors": lambda: Run(there).load(),
            "checkpoint.safetensors": lambda: checkpoints.read_last_good(there / name),
            "witnesses.safetensors": lambda: RobustResult.load(there / name),
        }
        assert judge("pickle", here, acts[name]) == "refused"


# --- checkpoints ---


def _of_checkpoint(named: dict[str, Tensor], facts: str) -> str:
    return checkpoints.digest(named)


@given(data=st.data())
@cases(12, 200)
def test_training_goes_on_from_a_checkpoint_or_refuses(run: Path, data: st.DataObject) -> None:
    """The run is not over, and one checkpoint is there: what came with the copy of a folder."""
    sound = (run / "checkpoint.safetensors").read_bytes()
    with place() as here:
        there = here.folder / "run"
        there.mkdir()
        info = json.loads((run / "run.json").read_text())
        del info["sha256"]
        (there / "run.json").write_text(json.dumps(info | {"status": "running", "result": None}))
        (there / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes())
        careful = resealed(sound, _of_checkpoint, "sha256")
        (there / "checkpoint.safetensors").write_bytes(data.draw(hostile_file(sound, here.marker, careful)))
        judge("checkpoint, read", here, lambda: checkpoints.read_last_good(there / "checkpoint.safetensors"))
        judge("checkpoint, resumed", here, lambda: train(RECIPE, out=there, progress=False), STARTED)


# --- witnesses and evaluations ---


@given(data=st.data())
@cases(25, 300)
def test_witnesses_are_verified_or_refused(run: Path, data: st.DataObject) -> None:
    sound = (run / "witnesses.safetensors").read_bytes()
    with place() as here:
        path = here.write("w.safetensors", data.draw(hostile_file(sound, here.marker, resealed(sound, seal, "seal"))))

        def act() -> None:
            done = attack_file.verify(path, named_model(ModelSource(run)))
            assert list(verify.lines(done))
            result = RobustResult.load(path)
            assert attack.table(result)
            assert list(attack.lines(result))
            assert len(result.broken_by) == len(result)

        judge("witnesses", here, act)


@given(data=st.data())
@cases(5, 60)
def test_verify_says_so_on_the_command_line(run: Path, data: st.DataObject) -> None:
    sound = (run / "witnesses.safetensors").read_bytes()
    with place() as here:
        path = here.write("w.safetensors", data.draw(hostile_file(sound, here.marker, resealed(sound, seal, "seal"))))
        judge("witnesses", here, lambda: command("verify", str(path), str(run)))


@given(data=st.data())
@cases(12, 200)
def test_evaluations_go_on_or_are_refused(run: Path, data: st.DataObject) -> None:
    sound = (run / "begun.safetensors").read_bytes()
    model, test = Run(run).load(), load_data(RECIPE["data"]).test
    examples = as_float(test.images[:COUNT]), test.labels[:COUNT]
    with place() as here:
        path = here.write("e.safetensors", data.draw(hostile_file(sound, here.marker, resealed(sound, seal, "seal"))))
        judge("evaluation, read", here, lambda: EvaluationState.load(path))
        attacks = SUITE.split(",")
        judge(
            "evaluation, resumed",
            here,
            lambda: robust_accuracy(model, *examples, THREAT, attacks, options=RunOptions(save_to=path)),
        )


# --- models that are named ---


BUILDERS = """
from torch import nn
import sys
def none(): return None
def fails(): raise ValueError("no\\nmodel")
def ends(): sys.exit(3)
def recursive(): return recursive()
def typed(): return nn.Linear
def asks(size): return nn.Linear(size, size)
class Odd(nn.Module):
    def __call__(self, *_): raise MemoryError
"""


@given(name=st.sampled_from(["theirs:none", "theirs:fails", "theirs:ends", "theirs:recursive", "theirs:typed"])
       | st.sampled_from(["theirs:asks", "theirs", "theirs:", ":build", "os:system", "os.path", "builtins:exec", ".:a"])
       | st.text(max_size=12) | st.text(max_size=8).map("theirs:{}".format))  # fmt: skip
@cases(20, 150)
def test_models_that_are_named_are_built_or_refused(name: str) -> None:
    with place() as here:
        here.write("theirs.py", BUILDERS.encode())
        with mock.patch.object(sys, "dont_write_bytecode", True):  # Python's own cache is no file left behind
            judge("named model", here, lambda: load_model(name))


def test_a_result_that_claims_more_memory_than_there_is_is_refused(run: Path) -> None:
    header, data = parts((run / "witnesses.safetensors").read_bytes())
    facts = json.loads(header["__metadata__"]["facts"])
    for shape in ([COUNT, 1, 2**20, 2**20], [2**40, 1, 8, 8], [COUNT, 10**6, 8, 8], [-1, 1, 8, 8], [COUNT, 1, 8]):
        header["__metadata__"]["facts"] = json.dumps(facts | {"shape": shape})
        with place() as here:
            path = here.write("w.safetensors", joined(header, data))
            assert judge("witnesses", here, lambda path=path: RobustResult.load(path)) == "refused"


def test_names_in_weights_cannot_reach_beyond_the_model() -> None:
    """A name is looked up among the model's own; it is never a path."""
    model = nn.Linear(2, 2)
    with place() as here:
        path = here.write("w.safetensors", save({"../../weight": torch.zeros(2, 2), "__class__": torch.zeros(1)}))
        assert judge("weights", here, lambda: load_weights(model, path)) == "refused"
