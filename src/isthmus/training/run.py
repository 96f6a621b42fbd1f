"""The run folder: everything needed to repeat, resume, audit and display one training run.

::

    run.json                  format, recipe (resolved, and what was given), data, provenance of every start, status,
                              result
    metrics.jsonl             terms and accuracies while training, a JSON object a line
    checkpoint.safetensors    whole state of the loop, for resuming
    weights.safetensors       the trained model
    weights-200.safetensors   the model after 200 steps, for each of training.snapshots
    audit/                    results of audits
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from isthmus import metrics
from isthmus.core import files, run_file
from isthmus.core.errors import ConfigError, FileError, ModelError, one_line, shown
from isthmus.core.format import NOT_MEASURED, in_words
from isthmus.core.notebook import Summarized, dataframe
from isthmus.core.recipe import Recipe, load_recipe
from isthmus.models import factory
from isthmus.models.external.weights import load_weights
from isthmus.models.given import GivenBackbone
from isthmus.models.learner import Learner
from isthmus.training import checkpoints

ENDED = ("finished", "collapsed")
"""Statuses of runs that have their weights."""


_EPOCH = "epoch_"  # starts the names of means over an epoch


@dataclass(frozen=True, repr=False)
class Run(Summarized):
    """A run folder, by its path."""

    path: Path

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike):
            raise FileError(f"A run folder is named by its path; got {shown(self.path)}.")
        object.__setattr__(self, "path", Path(self.path))

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.path / "weights.safetensors"

    def weights_at(self, step: int) -> Path:
        """The weights after a step of ``training.snapshots``."""
        return self.path / f"weights-{step}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """State to resume from."""
        return self.path / "checkpoint.safetensors"

    @property
    def metrics_file(self) -> Path:
        """Training metrics, one JSON object a line."""
        return self.path / "metrics.jsonl"

    def info(self) -> dict[str, Any]:
        """The content of ``run.json``.

        Raises:
            FileError: there is none, it is corrupt, or of another format.
        """
        if not files.exists(self.path):
            hint = f" Your own model: --model {self.path} --data DATA." if ":" in self.path.name else ""
            raise FileError(f"There is no run folder {self.path}; train one with: isthmus train RECIPE.{hint}")
        if not self.path.is_dir():
            raise FileError(
                f"{self.path} is a file; a run folder is what `isthmus train` writes. Name your own model by "
                f"the function that builds it: {_as_model(self.path)} --data DATA."
            )
        if not files.exists(self.path / "run.json") and files.exists(self.path / "audit"):
            raise FileError(
                f"{self.path} holds an audit of another model and no trained run; name that model by --model, as in "
                f"the command that wrote it, with --out {self.path}."
            )
        content = run_file.read(self.path / "run.json")
        if lacking := _lacking(content):
            raise FileError(
                f"{self.path / 'run.json'} is not valid (it has no {lacking}); restore it, or delete the folder "
                "and train again."
            )
        assert isinstance(content, dict)
        return content

    def write_info(self, content: dict[str, Any]) -> None:
        """Replace ``run.json`` atomically."""
        files.write_json(self.path / "run.json", {"format": run_file.FORMAT} | content)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            FileError: as :meth:`info`; or the file has no format, and its recipe is not complete or not valid.
            ConfigError: a component of the recipe is not installed.
        """
        content = self.info()
        if "format" in content:
            return load_recipe(content["recipe"])
        try:
            recipe = load_recipe(content["recipe"])
        except ConfigError as error:
            raise self._another_format(content, str(error)) from None
        if different := differences(content["recipe"], recipe.plain()):
            raise self._another_format(content, f"its recipe does not give {', '.join(different[:4])}")
        return recipe

    def _another_format(self, content: dict[str, Any], fault: str) -> FileError:
        fault = f"it has no format, expected {run_file.FORMAT}; {fault}"
        return run_file.another_format(self.path / "run.json", content, fault)

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics written so far, without a truncated last line.

        Raises:
            FileError: the file cannot be read, or a line before the last is not JSON.
        """
        return files.read_json_lines(self.metrics_file)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each finished epoch.

        Its columns are ``step``, ``epoch`` (counted from 1), the means of the terms over the epoch (``total``, ``ce``,
        ``accuracy``, …, in nats), and of validated epochs ``test_accuracy`` and ``collapsed``.

        Raises:
            ConfigError: pandas is not installed.
            FileError: as :meth:`metrics`.
        """
        ends = [line for line in self.metrics() if any(name.startswith(_EPOCH) for name in line)]
        rows = [{name.removeprefix(_EPOCH): value for name, value in line.items()} for line in ends]
        return dataframe([{**row, "epoch": row["epoch"] + 1} for row in rows], "metrics()")

    def _summary(self) -> dict[str, str]:
        try:
            info = self.info()
        except FileError as error:
            return {"Run": f"{self.path}", "status": one_line(error)}
        result, n = info["result"] or {}, info["data"].get("test")
        measured = "test_accuracy" in result and n
        accuracy = in_words(metrics.proportion(round(result["test_accuracy"] * n), n)) if measured else NOT_MEASURED
        return {
            "Run": f"{info['recipe'].get('name')} in {self.path}",
            "status": f"{info['status']}" + (f", step {result['step']:,}" if "step" in result else ""),
            "test accuracy": accuracy,
        }

    def load(self, step: int | None = None, backbone: nn.Module | None = None) -> Learner:
        """The trained model, in eval mode on the CPU.

        Args:
            step: load the model after this step, one of ``training.snapshots``; None means the final model.
            backbone: of a run whose backbone was given as a module: a module with the same layers, which is copied and
                gets the trained weights.

        Raises:
            FileError: the run is not finished or has no weights of this step, or a file is corrupt.
            ModelError: the weights do not fit the recipe, or the backbone is missing or has other layers.
            ConfigError: a backbone for a run whose recipe builds its own.
        """
        info = self.info()
        weights = self.weights if step is None else self.weights_at(step)
        if not files.exists(weights):
            raise FileError(self._missing(step, info.get("status")))
        data = info["data"]
        model = factory.build(self._recipe_with(backbone), tuple(data["shape"]), len(data["classes"]))
        load_weights(model, weights)
        expected = (info.get("result") or {}).get("weights_sha256") if step is None else checkpoints.checksum(weights)
        if expected is not None and checkpoints.digest(model.state_dict()) != expected:
            where, how = (
                ("run.json", "Delete it and run") if step is None else ("its header", "Delete the folder and run")
            )
            raise FileError(
                f"{weights} does not match the checksum in {where}: it is damaged, or from another run. {how} the same "
                "`isthmus train` command again."
            )
        return model.eval()

    def _recipe_with(self, backbone: nn.Module | None) -> Recipe:
        recipe = self.recipe
        if backbone is None:
            return recipe
        recorded, given = recipe.model.backbone, GivenBackbone.of(backbone)
        if not isinstance(recorded, GivenBackbone):
            raise ConfigError(f"{self.path} builds its backbone, {recorded.name}, from its recipe; leave out backbone.")
        if given.plain() != recorded.plain():
            raise ModelError(
                f"{self.path} was trained with a backbone {recorded.module} of other layers than this {given.module}; "
                "give a module with the same layers."
            )
        return load_recipe(recipe, {"model.backbone": given})

    def _missing(self, step: int | None, status: object) -> str:
        again = f"(status: {status}); to finish it, run the same `isthmus train` command again."
        if step is None:
            return f"{self.path} has no weights yet {again}"
        kept = self.recipe.training.snapshots
        if step in kept:
            return f"{self.path} has no weights of step {step} yet {again}"
        known = f"those of {', '.join(map(str, kept))}" if kept else "none"
        return (
            f"{self.path} has no weights of step {step} (training.snapshots: {known}). Train again in another folder, "
            "with this step among the snapshots."
        )


def _as_model(path: Path) -> str:
    """Command-line options for a file that was given instead of a run folder."""
    if path.suffix == ".py":
        return f"--model {path.stem}:FUNCTION"
    weights = f" --weights {path}" if path.suffix == ".safetensors" else ""
    return f"--model package.module:function{weights}"


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted keys at which two nested mappings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [found for key in keys for found in differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [path.lstrip(".")]


def _lacking(content: object) -> str:
    """The name of a missing part of ``run.json``; empty if it is complete."""
    if not isinstance(content, dict):
        return "recipe"
    for name, kind in (("recipe", dict), ("data", dict), ("status", str), ("starts", list)):
        if not isinstance(content.get(name), kind):
            return name
    shape, classes, result = content["data"].get("shape"), content["data"].get("classes"), content.get("result")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        return "shape of its data"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "classes of its data"
    return "" if isinstance(result, dict if content["status"] in ENDED else dict | None) else "result"


def load(path: str | Path, step: int | None = None, backbone: nn.Module | None = None) -> Learner:
    """Load the trained model of a run folder, in eval mode on the CPU. Loading never runs code.

    Args:
        step: load the model after this step, one of ``training.snapshots``; None means the final model.
        backbone: of a run whose backbone was given as a module: a module with the same layers.

    Raises:
        FileError: no such folder, an unfinished run, no weights of that step, or a corrupt file.
        ModelError: the backbone is missing or has other layers.
    """
    return Run(path).load(step, backbone)  # type: ignore[arg-type]  # Run makes it a Path
