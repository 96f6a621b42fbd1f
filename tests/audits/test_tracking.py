"""Audits in experiment trackers."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import isthmus
from isthmus import metrics
from isthmus.audits import Audit
from isthmus.core.errors import ConfigError
from isthmus.core.results import AuditRecord
from isthmus.core.types import CheckResult, Metric, Metrics, Status
from tests.report.verdict_standins import diagnosis

CLEAN = metrics.accuracy(np.arange(50) < 45).named("accuracy", mode="mean")
NAME = "accuracy/accuracy.mode_mean"


@pytest.fixture
def audit() -> Audit:
    record = AuditRecord(
        model="net",
        model_hash="ab",
        data="digits",
        data_hash="cd",
        n=50,
        num_classes=10,
        seed=0,
        settings={"threat": "linf:0.1"},
        provenance={"packages": {"isthmus": "0.1.0"}},
    )
    unknown = Metric(name="mce", value=None, unit="fraction", n=0, note="no baseline")
    other = metrics.accuracy(np.arange(5) < 4).named("accuracy", mode="mean", corruption="jpeg=compression/2")
    accuracy = CheckResult(
        check="accuracy", status=Status.MEASURED, reason="", metrics=Metrics([CLEAN, unknown, other])
    )
    return Audit(record, {"accuracy": accuracy, "diagnosis": diagnosis("overstated", 92, 51)})


def test_tensorboard_gets_every_number_with_its_interval(audit, tmp_path) -> None:
    isthmus.log_to(f"tensorboard:{tmp_path}", audit, step=7)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = {tag: events.Scalars(tag)[0] for tag in events.Tags()["scalars"]}
    assert found[NAME].step == 7
    assert found[NAME].value == pytest.approx(0.9)
    assert found[f"{NAME}.low"].value == pytest.approx(CLEAN.interval.low)
    assert found[f"{NAME}.high"].value == pytest.approx(CLEAN.interval.high)
    assert found[f"{NAME}.n"].value == 50
    assert "accuracy/accuracy.mode_mean.corruption_jpeg_compression_2" in found
    assert not any("mce" in tag for tag in found)
    assert "isthmus/summary/text_summary" in events.Tags()["tensors"]


def test_mlflow_gets_metrics_and_tags(audit, monkeypatch) -> None:
    logged, tags = {}, {}
    module = ModuleType("mlflow")  # with the signatures of mlflow 3
    module.log_metrics = lambda metrics, step=None, synchronous=None: logged.update(metrics)
    module.set_tags = lambda tags_, synchronous=None: tags.update(tags_)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    isthmus.log_to("mlflow", audit, step=7)
    assert logged[NAME] == 0.9
    assert logged["diagnosis/corrected_accuracy.mode_mean.norm_linf.eps_0.1"] == 0.51
    assert tags["isthmus.verdict"] == "overstated"
    folders = [name for name in logged if any(other.startswith(f"{name}/") for other in logged)]
    assert not folders, "its file store makes folders of slashes"


def test_wandb_gets_numbers_and_configuration(audit, monkeypatch) -> None:
    config, logged = {}, {}
    run = SimpleNamespace(
        log=lambda data, step=None, commit=None: logged.update(data),
        config=SimpleNamespace(update=lambda facts, allow_val_change=None: config.update(facts)),
    )
    isthmus.log_to(run, audit)
    assert logged[NAME] == 0.9
    assert config["isthmus"]["model_hash"] == "ab"
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    with pytest.raises(ConfigError, match=r"wandb\.init"):
        isthmus.log_to("wandb", audit)


@pytest.mark.parametrize("target", ["mlflo", 3, None])
def test_another_target_is_refused(audit, target) -> None:
    with pytest.raises(ConfigError, match="log_to takes 'mlflow'"):
        isthmus.log_to(target, audit)


def test_a_tracker_that_is_not_installed_is_named(audit, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'isthmus\[mlflow\]'"):
        isthmus.log_to("mlflow", audit)
