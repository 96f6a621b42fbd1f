"""Loggers get every row of metrics.jsonl once, also of a run that was interrupted and resumed."""

import csv
import json
import logging
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

import isthmus
from isthmus.core import files
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.training.loop import Trainer
from isthmus.training.run import Run

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"name": "digits", "train_limit": 320, "test_limit": 50},
    "model": {"backbone": {"name": "mlp", "hidden": [16]}, "dim": 2},
    "objective": {"name": "ceb", "rho": 3},
    # 10 steps an epoch; checkpoints after steps 4, 8, 10, 12, 16, 20, ...
    "training": {"epochs": 3, "batch_size": 32, "log_every": 3, "checkpoint_every": 4},
}
OWN = "tests.training.recorder:Recorder"


def train(out: Path, *loggers: object, **overrides: object) -> Run:
    settings = {"training.loggers": list(loggers), **overrides}
    return isthmus.train(SMALL, settings, out=out, progress=False)


@pytest.fixture
def unplug(monkeypatch):
    """Make the next training stop after a step, before it can write anything about it."""
    take_step = Trainer._step

    def at(step: int) -> None:
        def take_and_stop(self, *arguments):
            take_step(self, *arguments)
            if self.step == step:
                monkeypatch.setattr(Trainer, "_step", take_step)
                raise RuntimeError("pulled the plug")

        monkeypatch.setattr(Trainer, "_step", take_and_stop)

    return at


def interrupted(out: Path, unplug, *loggers: object, **overrides: object) -> Run:
    """A run that was interrupted after step 15 and resumed from its checkpoint of step 12."""
    unplug(15)
    with pytest.raises(RuntimeError, match="plug"):
        train(out, *loggers, **overrides)
    return train(out, *loggers, **overrides)


def table(run: Run) -> list[dict[str, str]]:
    with (run.path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def as_cells(line: dict[str, Any], columns: list[str]) -> dict[str, str]:
    numbers = {name: int(value) if isinstance(value, bool) else value for name, value in line.items()}
    return {name: "" if numbers.get(name) is None else str(numbers[name]) for name in columns}


def test_csv_has_a_row_for_each_line_and_a_column_for_each_metric(tmp_path, unplug) -> None:
    run = interrupted(tmp_path / "run", unplug, "csv")
    rows, lines = table(run), run.metrics()
    assert list(rows[0])[:2] == ["step", "epoch"]
    assert {name for line in lines for name in line} == set(rows[0])  # epoch_ce and others appear only at step 10
    assert rows == [as_cells(line, list(rows[0])) for line in lines]
    assert [row["step"] for row in rows if row["epoch_ce"]] == ["10", "20", "30"]
    assert run.metrics() == train(tmp_path / "whole").metrics()


def test_csv_is_complete_while_a_run_is_interrupted(tmp_path, unplug) -> None:
    unplug(15)
    with pytest.raises(RuntimeError, match="plug"):
        train(tmp_path / "run", "csv")
    assert [int(row["step"]) for row in table(Run(tmp_path / "run"))] == [3, 6, 9, 10, 12]


def test_numbers_of_callbacks_have_dotted_names(tmp_path) -> None:
    run = train(tmp_path / "run", "csv", **{"training.epochs": 1, "training.callbacks": ["gradient_snr"]})
    observed = next(line["observed"] for line in run.metrics() if "observed" in line)
    layer, ratios = next(iter(observed["gradient_snr"].items()))
    assert str(ratios["snr"]) in {row[f"observed.gradient_snr.{layer}.snr"] for row in table(run)}


def test_tensorboard_has_every_number_of_a_resumed_run_once(tmp_path, unplug) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = interrupted(tmp_path / "run", unplug, "tensorboard")
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    for name in ("ce", "epoch_accuracy", "test_accuracy"):
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in run.metrics() if name in line]
        assert [(each.step, each.value) for each in events.Scalars(name)] == expected


def test_a_logger_of_ones_own_gets_the_kept_rows_and_then_the_new_ones(tmp_path, unplug) -> None:
    run = interrupted(tmp_path / "run", unplug, OWN)
    first, *told = files.read_json_lines(run.path / "recorded.jsonl")
    again = next(number for number, what in enumerate(told) if "started" in what)
    assert (first["started"], told[again]["started"]) == (0, 12)
    assert first["id"] == told[again]["id"] == run.info()["id"]
    assert [what["row"]["step"] for what in told[: again - 1]] == [3, 6, 9, 10, 12]
    assert told[again - 1] == {"finished": False}
    assert [what["row"]["step"] for what in told[again + 1 : -1]] == [line["step"] for line in run.metrics()]
    assert told[-1] == {"finished": True}
    other = train(tmp_path / "other", OWN)
    assert other.info()["id"] != run.info()["id"]


def test_a_logger_that_fails_does_not_end_the_training(tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING, "isthmus"):
        run = train(tmp_path / "run", {"name": OWN, "fail_at": 12}, "csv")
    warned = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert len(warned) == 1
    assert f"The logger '{OWN}' failed (ConnectionError: no server)" in warned[0]
    assert len(table(run)) == len(run.metrics()), "the others go on"


def test_a_logger_that_cannot_start_is_an_error(tmp_path) -> None:
    with pytest.raises(ConfigError, match=rf"'{OWN}' cannot start \(ConnectionError: no server\)"):
        train(tmp_path / "run", {"name": OWN, "fail_at": 0})


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_package_that_is_not_installed_is_named_before_anything_is_written(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"The logger '{name}' needs {name}: pip install 'isthmus\[{name}\]'"):
        train(tmp_path / "run", name)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"tensorboard": True}, r"training: .*tensorboard is no option any more; write loggers: \[tensorboard\]"),
        ({"tensorboard": False}, "tensorboard is no option any more; leave it out"),
        ({"loggers": ["tensorbord"]}, "There is no logger 'tensorbord'. Did you mean 'tensorboard'"),
        ({"loggers": ["csv", "csv"]}, "each logger can be used once; csv is given more than once"),
        ({"loggers": [{"name": "wandb", "projekt": "x"}]}, "There is no key 'projekt'. Did you mean 'project'"),
    ],
)
def test_wrong_loggers_are_explained(training, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(SMALL | {"training": training})


@pytest.mark.parametrize(("before", "loggers"), [(False, []), (True, [{"name": "tensorboard"}])])
def test_a_run_folder_from_before_loggers_is_read(tmp_path, before, loggers) -> None:
    run = train(tmp_path / "run")
    info = run.info()
    del info["recipe"]["training"]["loggers"], info["id"]
    info["recipe"]["training"]["tensorboard"] = before
    run.write_info(info)
    assert run.recipe.plain()["training"]["loggers"] == loggers
    assert run.load() is not None


def points(run: Run, name: str) -> list[tuple[int, float]]:
    return [(line["step"], line[name]) for line in run.metrics() if name in line]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_continues_the_same_run(tmp_path, unplug, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its database takes 10 seconds to make
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    run = interrupted(tmp_path / "run", unplug, {"name": "mlflow", "experiment": "ours"})
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("ours")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.tags["isthmus.run"] == run.info()["id"]
    assert found.data.params["objective.rho"] == "3.0"
    for name in ("ce", "epoch_accuracy"):
        history = client.get_metric_history(found.info.run_id, name)
        assert sorted((metric.step, metric.value) for metric in history) == points(run, name)
    assert mlflow.active_run() is None


@pytest.mark.filterwarnings("ignore")
def test_wandb_continues_the_run_by_its_id(tmp_path, unplug, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = interrupted(tmp_path / "run", unplug, "wandb")
    starts = sorted((run.path / "wandb").glob("offline-run-*"))
    assert len(starts) == 2
    assert {each.name.rpartition("-")[2] for each in starts} == {run.info()["id"]}
    for name in ("ce", "epoch_accuracy"):
        assert history(starts[1], name) == points(run, name), "the last folder has the whole run"


def history(folder: Path, name: str) -> list[tuple[int, float]]:
    """The points of a metric in W&B's own file of a run, records in the format of LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    data, found, place, whole = next(folder.glob("*.wandb")).read_bytes(), [], 7, b""
    while place < len(data):
        if 32768 - place % 32768 < 7:  # a block's padding
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole, place = whole + data[place + 7 : place + 7 + length], place + 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = wandb_internal_pb2.Record.FromString(whole)
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            found += [(record.history.step.num, values[name])] if name in values else []
            whole = b""
    return found
