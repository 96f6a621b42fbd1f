"""Audits: any model, results that stay, interruptions that cost one check at most, errors that are results."""

import importlib
import json
import logging
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import isthmus
from isthmus import audits as auditing
from isthmus.audits import running
from isthmus.audits.progress import CheckProgress, over_all
from isthmus.audits.target import ModelSource, audit_run
from isthmus.checks.context import Context
from isthmus.cli import app
from isthmus.core import files, provenance, registry, results
from isthmus.core.errors import ConfigError, DataError, FileError, ModelError
from isthmus.core.ray_cluster import Cluster
from isthmus.core.types import Status
from isthmus.data import Digits
from isthmus.data.images import as_float
from isthmus.data.order import balanced
from isthmus.report.page import write

ROBUSTNESS = {"name": "robustness", "levels": 2, "attacks": ["fgsm", "pgd:5"]}
CHECKS = ["accuracy", ROBUSTNESS, "calibration", "information"]


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    test = Digits().load().test
    return as_float(test.images[:100]), test.labels[:100]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A linear classifier of digits, by least squares."""
    train, linear = Digits().load().train, nn.Linear(64, 10)
    images = as_float(train.images).flatten(1)
    padded = torch.cat([images, torch.ones(len(images), 1)], 1)
    weight = torch.linalg.lstsq(padded, 10 * torch.eye(10)[train.labels], driver="gelsd").solution
    linear.load_state_dict({"weight": weight[:-1].T.clone(), "bias": weight[-1].clone()})
    return nn.Sequential(nn.Flatten(), linear)


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """Names of the checks that really ran."""
    ran: list[str] = []
    run = running._run

    def counted(check, context, debug):
        ran.append(check.name)
        return run(check, context, debug)

    monkeypatch.setattr(running, "_run", counted)
    return ran


def test_any_model_is_audited(model, data, tmp_path):
    audit = isthmus.audit(model, *data, isthmus.Linf(0.1), checks=CHECKS)
    assert list(audit.results) == ["accuracy", "robustness", "calibration", "information"]
    assert audit.results["information"].status is Status.SKIPPED
    assert audit.record.n == 100
    page = audit.save(tmp_path / "audit.html").read_text()
    assert "Sequential" in page
    assert audit.record.model_hash in page


def test_results_are_kept_and_not_made_again(model, data, tmp_path, runs):
    first = isthmus.audit(model, *data, isthmus.Linf(0.1), checks=CHECKS, out=tmp_path / "a")
    again = isthmus.audit(model, *data, isthmus.Linf(0.1), checks=CHECKS, out=tmp_path / "a")
    assert len(runs) == 4
    assert {n: r.plain() for n, r in again.results.items()} == {n: r.plain() for n, r in first.results.items()}


def test_two_audits_never_write_into_one_folder(model, data, tmp_path):
    with files.exclusive(tmp_path / "a", "auditing into"), pytest.raises(FileError, match=r"auditing into .*; wait"):
        isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path / "a")
    assert not (tmp_path / "a" / "audit.json").exists()
    isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path / "a")


def test_an_interrupted_audit_goes_on_with_the_next_check(model, data, tmp_path, runs, monkeypatch):
    check = registry.load("checks", "calibration")
    monkeypatch.setattr(check, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        isthmus.audit(model, *data, isthmus.Linf(0.1), checks=CHECKS, out=tmp_path / "a")
    assert results.saved_checks(tmp_path / "a") == ["accuracy", "robustness"]
    monkeypatch.undo()
    ran: list[str] = []
    run = running._run
    monkeypatch.setattr(running, "_run", lambda check, *rest: (ran.append(check.name), run(check, *rest))[1])
    isthmus.audit(model, *data, isthmus.Linf(0.1), checks=CHECKS, out=tmp_path / "a")
    assert ran == ["calibration", "information"]


def test_other_settings_move_old_results_aside(model, data, tmp_path, runs, caplog):
    isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path / "a")
    isthmus.audit(model, *data, isthmus.Linf(0.2), checks=["accuracy"], out=tmp_path / "a")
    assert runs == ["accuracy", "accuracy"]
    (record,) = caplog.records
    assert "a held an audit of another threat, budget or other setting; it is now in" in record.getMessage()
    assert f"`isthmus report {tmp_path / 'a-1'}`" in record.getMessage()
    assert results.load_record(tmp_path / "a-1").settings["threat"] == "linf:0.1"
    assert results.load_record(tmp_path / "a").settings["threat"] == "linf:0.2"


def test_only_a_check_with_other_options_runs_again(model, data, tmp_path, runs):
    isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy", "calibration"], out=tmp_path)
    isthmus.audit(
        model, *data, isthmus.Linf(0.1), checks=["accuracy", {"name": "calibration", "bins": 5}], out=tmp_path
    )
    assert runs == ["accuracy", "calibration", "calibration"]


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_a_damaged_result_is_made_again(model, data, tmp_path, runs, damage):
    isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path)
    if damage is None:
        (tmp_path / "accuracy.npz").write_bytes((tmp_path / "accuracy.npz").read_bytes()[:50])
    else:
        (tmp_path / "accuracy.json").write_bytes(damage)
    isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path)
    assert runs == ["accuracy", "accuracy"]
    assert results.load_result(tmp_path, "accuracy").arrays


def test_a_failing_check_is_a_result_and_the_others_run(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.load("checks", "calibration"), "run", lambda *_: 1 / 0)
    audit = isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["calibration", "accuracy"])
    assert audit.results["calibration"].status is Status.ERROR
    assert audit.results["calibration"].reason.startswith("ZeroDivisionError: division by zero, raised in ")
    assert audit.results["accuracy"].status is not Status.ERROR
    assert "division by zero" in audit.save(tmp_path / "a.html").read_text()
    with pytest.raises(ZeroDivisionError):
        isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["calibration"], options=isthmus.AuditOptions(debug=True))


class Cramped(nn.Module):
    """Has memory for so many images at a time."""

    def __init__(self, model, most):
        super().__init__()
        self.model, self.most, self.largest = model, most, 0

    def forward(self, images):
        if len(images) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: can't allocate memory")
        self.largest = max(self.largest, len(images))
        return self.model(images)


@pytest.mark.parametrize("most", [1000, 30, 8])
def test_an_audit_halves_its_batches_where_memory_runs_out(model, data, most, caplog):
    given = {"images": data[0][:40], "labels": data[1][:40], "threat": "linf:0.1", "checks": [*CHECKS[:3]]}
    expected = isthmus.audit(model, **given)
    cramped = Cramped(model, most)
    found = isthmus.audit(cramped, **given)
    for name, result in found.results.items():
        assert result.status is expected.results[name].status, result.reason
        assert result.metrics == expected.results[name].metrics
    assert cramped.largest <= most
    said = {1000: [], 30: ["batches of 256; the audit uses 16"], 8: ["batches of 256; the audit uses 8"]}[most]
    assert [record.getMessage().partition("memory for ")[2].removesuffix(".") for record in caplog.records] == said


def test_the_batch_size_of_an_audit_is_kept(model, data):
    cramped = Cramped(model, 1000)
    isthmus.audit(cramped, *data, "linf:0.1", ["accuracy", "calibration"], options=isthmus.AuditOptions(batch_size=8))
    assert cramped.largest == 8


def test_two_checkpoints_of_one_architecture_have_two_folders(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twoways.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    pages = set()
    for seed, path in enumerate(["a.safetensors", "b.safetensors", "c/b.safetensors"]):
        torch.manual_seed(seed)
        (tmp_path / path).parent.mkdir(exist_ok=True)
        layer = nn.Linear(64, 10)
        save_file({"1.weight": layer.weight.detach(), "1.bias": layer.bias.detach()}, tmp_path / path)
        source = ModelSource(model="twoways:build", weights=Path(path), data="digits", count=20)
        pages.add(audit_run(source, checks=["accuracy"]))
    assert {str(page.parent) for page in pages} == {"runs/twoways.build-a", "runs/twoways.build-b"}
    (record,) = caplog.records
    assert "runs/twoways.build-b/audit held an audit of another model; it is now in" in record.getMessage()


CHECK = """
from typing import Literal
from isthmus import metrics
from isthmus.checks import Check
from isthmus.core.types import CheckResult, Metrics, Status

class Bright(Check):
    name: Literal["bright"] = "bright"

    def run(self, context):
        share = metrics.proportion(int((context.images.mean((1, 2, 3)) > 0.3).sum()), len(context.labels))
        found = Metrics([share.named("bright images")])
        return CheckResult(check="bright", status=Status.MEASURED, reason="Some are.", metrics=found)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package `theirpackage` whose only module is the check `bright`."""

    def install(text: str) -> None:
        folder = tmp_path / "site"
        (folder / "theirpackage").mkdir(parents=True)
        (folder / "theirpackage" / "bright.py").write_text(text)
        metadata = folder / "theirpackage-0.1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirpackage\nVersion: 0.1\n")
        (metadata / "entry_points.txt").write_text("[isthmus.checks]\nbright = theirpackage.bright\n")
        monkeypatch.syspath_prepend(folder)
        registry._registered.cache_clear()

    yield install
    registry._registered.cache_clear()
    for name in ("theirpackage", "theirpackage.bright"):
        sys.modules.pop(name, None)


def test_a_check_without_a_section_shows_its_metrics(model, data, tmp_path, installed):
    installed(CHECK)
    audit = isthmus.audit(model, *data, isthmus.Linf(0.1), ["accuracy", "bright"], out=tmp_path / "run" / "audit")
    for page in (audit.save(tmp_path / "audit.html"), write([tmp_path / "run"], tmp_path / "report.html")):
        text = page.read_text("utf-8")
        assert "bright images" in text


def test_an_error_of_an_installed_check_names_its_module_and_line(model, data, tmp_path, installed, capsys):
    installed(CHECK.replace("def run(self, context):", "def run(self, context):\n        {}['key']"))
    reason = isthmus.audit(model, *data, isthmus.Linf(0.1), ["bright"]).results["bright"].reason
    assert reason.startswith("KeyError: 'key', raised in theirpackage.bright (")
    assert reason.endswith("bright.py, line 11), which is not part of isthmus")


def test_a_module_that_cannot_be_imported_is_not_called_ours(model, data, installed, capsys):
    installed("import torch\nimport nowhere_to_be_found\n")
    with pytest.raises(ConfigError) as caught:
        isthmus.audit(model, *data, isthmus.Linf(0.1), ["bright"])
    for part in ("theirpackage", "nowhere_to_be_found", "raised in theirpackage.bright"):
        assert part in str(caught.value)


def test_the_command_line_tells_our_errors_from_theirs(model, data, installed, capsys, monkeypatch):
    installed("def fail(): raise TypeError('what is this?')\n")
    monkeypatch.setattr(app, "app", lambda *_, **__: importlib.import_module("theirpackage.bright").fail())
    assert app.run([], debug=False) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error in theirpackage.bright (")
    assert "bright.py, line 1), which is not part of isthmus: TypeError: what is this?. --debug" in said
    monkeypatch.setattr(app, "app", files.sha256)
    assert app.run([], debug=False) == 1
    assert capsys.readouterr().err.startswith("Error inside isthmus: ")


def test_errors_are_tried_again(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.load("checks", "accuracy"), "run", lambda *_: 1 / 0)
    isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path)
    monkeypatch.undo()
    audit = isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path)
    assert audit.results["accuracy"].status is not Status.ERROR


def test_seed_and_model_are_part_of_the_question(model, data, tmp_path):
    first = isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path / "a")
    with torch.no_grad():
        model[1].bias += 0.01
    second = isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy"], out=tmp_path / "a")
    assert first.record.model_hash != second.record.model_hash
    assert (tmp_path / "a-1").exists()


def test_stochastic_results_do_not_depend_on_the_batch_size(data):
    torch.manual_seed(0)
    bottleneck = isthmus.bottleneck(nn.Flatten(), 10, "vib", dim=3, features=64)
    few = [part[:24] for part in data]
    one, two = (
        isthmus.audit(
            bottleneck, *few, isthmus.Linf(0.1), checks=CHECKS, options=isthmus.AuditOptions(batch_size=size)
        ).results
        for size in (9, 24)
    )
    for name in ("accuracy", "robustness", "information"):
        a, b = one[name].metrics, two[name].metrics
        assert [m.value for m in a] == pytest.approx([m.value for m in b], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m, x, y: (m, x * 255, y), DataError, "255"),
        (lambda m, x, y: (m, x - 1, y), DataError, r"\[0, 1\]"),
        (lambda m, x, y: (m, x, y + 5), DataError, "label"),
        (lambda m, x, y: (m, x, y.float()), DataError, "integer"),
        (lambda m, x, y: (m, x, y[:5]), DataError, "one for each of 100 images; got int64 of shape"),
        (lambda m, x, y: (m, x[:0], y[:0]), DataError, "at least one image"),
        (lambda m, x, y: (m, x[0], y[:1]), DataError, r"one image C×H×W, images\[None\]"),
        (lambda m, x, y: (m, x, nn.functional.one_hot(y)), DataError, r"pass labels.argmax\(1\)"),
        (lambda m, x, y: (m, x, y + 1), DataError, "They seem to start at 1: subtract 1"),
        (lambda m, x, y: (Indices(m), x, y), ModelError, "class indices rather than logits"),
        (lambda m, x, y: (nn.Flatten(), x, y), None, ""),
        (lambda m, x, y: (nn.Linear(3, 3), x, y), ModelError, "fails on images"),
    ],
)
def test_bad_input_is_explained(model, data, change, error, message):
    arguments = change(model, *data)
    if error is None:
        isthmus.audit(*arguments, isthmus.Linf(0.1), checks=["accuracy"])
        return
    with pytest.raises(error, match=message):
        isthmus.audit(*arguments, isthmus.Linf(0.1), checks=["accuracy"])


def test_unknown_checks_get_a_suggestion(model, data):
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["acuracy"])


class Indices(nn.Module):
    """The predicted class of another model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).argmax(1)


def test_names_of_checks_may_be_one_text(model, data):
    audit = isthmus.audit(model, *data, isthmus.Linf(0.1), checks="accuracy, calibration")
    assert list(audit.results) == ["accuracy", "calibration"]
    with pytest.raises(ConfigError, match="checks must be a list of names"):
        isthmus.audit(model, *data, isthmus.Linf(0.1), checks=3)


def test_options_are_an_object(model, data):
    with pytest.raises(ConfigError, match=r"options must be AuditOptions, such as AuditOptions\(batch_size=64\)"):
        isthmus.audit(model, *data, isthmus.Linf(0.1), options={"batch_size": 64})


@pytest.mark.parametrize("claimed", ["65", 65, " 65 "])
def test_a_claim_in_percent_needs_its_sign(model, data, claimed):
    with pytest.raises(ConfigError, match=r"Did you mean 65%\?"):
        isthmus.audit(model, *data, isthmus.Linf(0.1), claimed=claimed)


@pytest.mark.parametrize("options", [{"claimed": "65%"}, {"options": isthmus.AuditOptions(passes=500)}])
def test_what_only_the_diagnosis_uses_is_refused_without_it(model, data, options):
    with pytest.raises(ConfigError, match=r"is not among the checks \(accuracy, calibration\): add it, or omit"):
        isthmus.audit(model, *data, isthmus.Linf(0.1), ["accuracy", "calibration"], **options)


class Service(nn.Module):
    """Counts the images that it, or any copy of it, is shown."""

    shown = 0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        type(self).shown += len(images)
        return torch.from_numpy(self.linear(images.flatten(1)).detach().numpy())


@pytest.mark.parametrize("budget", [4_000, 20_000])
def test_no_more_images_are_shown_than_the_queries_allow(data, budget):
    images, _ = data
    labels, Service.shown = Service()(images).argmax(1), 0
    audit = isthmus.audit(
        Service(),
        images,
        labels,
        "linf:0.02",
        ["diagnosis", "accuracy"],
        options=isthmus.AuditOptions(max_queries=budget),
    )
    assert Service.shown <= budget
    assert audit.verdict.status == ("undecided" if budget == 4_000 else "broken")
    assert audit.results["accuracy"].metrics.one("accuracy", mode="mean").value == 1


def test_queries_that_do_not_cover_the_clean_images_are_refused(data):
    with pytest.raises(ModelError, match="the 50 queries of max_queries are spent"):
        isthmus.audit(Service(), *data, "linf:0.02", ["accuracy"], options=isthmus.AuditOptions(max_queries=50))


def test_progress_is_told_by_check(model, data):
    seen = []
    isthmus.audit(
        model, *data, isthmus.Linf(0.1), CHECKS, options=isthmus.AuditOptions(progress=lambda *step: seen.append(step))
    )
    for check in {step[0] for step in seen}:
        shares = [done / total for name, done, total in seen if name == check]
        assert shares == sorted(shares)
    assert {check for check, _, _ in seen} == {"accuracy", "robustness", "calibration", "information"}
    assert all(done <= total for _, done, total in seen)


def test_a_line_is_logged_for_each_finished_check(model, data, tmp_path, caplog):
    for _ in "again":
        caplog.clear()
        with caplog.at_level("INFO", "isthmus"):
            isthmus.audit(model, *data, "linf:0.1", ["accuracy", "calibration"], out=tmp_path)
        lines = [record.getMessage() for record in caplog.records if record.name == "isthmus.audits.running"]
        assert [line.partition(":")[0] for line in lines] == ["accuracy", "calibration"]
    assert all(line.endswith("stored result") for line in lines)


def test_rows_are_tidy_and_become_a_table_if_pandas_is_there(model, data, monkeypatch):
    audit = isthmus.audit(model, *data, "linf:0.1", ["accuracy", "calibration"], options=isthmus.AuditOptions(name="m"))
    rows = audit.rows()
    (accuracy,) = [row for row in rows if row["name"] == "accuracy" and "class" not in row]
    assert (accuracy["model"], accuracy["check"], accuracy["mode"], accuracy["n"]) == ("m", "accuracy", "mean", 100)
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert len(rows) == sum(len(result.metrics) for result in audit.results.values())
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    assert audit.to_dataframe() == rows
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        audit.to_dataframe()


def test_results_are_plain_json(model, data, tmp_path):
    isthmus.audit(model, *data, isthmus.Linf(0.1), checks=CHECKS, out=tmp_path)
    for path in tmp_path.glob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)


def test_an_audit_of_fewer_checks_keeps_the_others(model, data, tmp_path, runs):
    isthmus.audit(model, *data, "linf:0.1", checks=["accuracy", "calibration"], out=tmp_path)
    isthmus.audit(model, *data, "linf:0.1", checks=["accuracy"], out=tmp_path)
    assert results.saved_checks(tmp_path) == ["accuracy", "calibration"]
    isthmus.audit(model, *data, "linf:0.1", checks=["accuracy", "calibration"], out=tmp_path)
    assert runs == ["accuracy", "calibration"]


class TestWhatIsUsedAgain:
    """A stored result stands for another run only where that run would repeat it."""

    def test_options_are_compared_with_those_the_result_was_made_with(self, model, data, tmp_path, monkeypatch):
        def bins(number):
            checks = [{"name": "calibration", "bins": number}]
            return isthmus.audit(model, *data, "linf:0.1", checks, out=tmp_path).results["calibration"]

        assert len(bins(20).details["bins"]["mean"]["equal_width"]) == 20
        with monkeypatch.context() as patch:
            patch.setattr(
                registry.load("checks", "calibration"), "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
            )
            with pytest.raises(KeyboardInterrupt):
                bins(5)
        assert len(bins(5).details["bins"]["mean"]["equal_width"]) == 5
        assert results.load_result(tmp_path, "calibration").options["bins"] == 5

    def test_arrays_of_another_run_are_noticed(self, model, data, tmp_path, runs):
        isthmus.audit(model, *data, "linf:0.1", ["accuracy"], out=tmp_path)
        with np.load(tmp_path / "accuracy.npz") as archive:
            arrays = dict(archive)
        np.savez_compressed(tmp_path / "accuracy.npz", **arrays | {"correct": ~arrays["correct"]})
        isthmus.audit(model, *data, "linf:0.1", ["accuracy"], out=tmp_path)
        assert runs == ["accuracy", "accuracy"]

    def test_who_made_a_number_stays_with_it(self, model, data, tmp_path, monkeypatch):
        made = provenance.collect()
        monkeypatch.setattr(provenance, "collect", lambda: made | {"date": "then"})
        isthmus.audit(model, *data, "linf:0.1", ["accuracy"], out=tmp_path)
        monkeypatch.setattr(provenance, "collect", lambda: made | {"date": "now"})
        again = isthmus.audit(model, *data, "linf:0.1", ["accuracy"], out=tmp_path)
        assert again.results["accuracy"].provenance["date"] == "then"
        assert again.record.provenance["date"] == results.load_record(tmp_path).provenance["date"] == "then"
        more = isthmus.audit(model, *data, "linf:0.1", ["accuracy", "calibration"], out=tmp_path)
        assert [result.provenance["date"] for result in more.results.values()] == ["then", "now"]

    @pytest.mark.parametrize("change", [{"commit": "other"}, {"packages": {"isthmus": "0.0.0"}}])
    def test_results_of_other_code_are_made_again(self, model, data, tmp_path, runs, monkeypatch, change):
        made = provenance.collect() | {"commit": "abc+"}
        for what in (made, made, made | change):
            monkeypatch.setattr(provenance, "collect", lambda what=what: what)
            isthmus.audit(model, *data, "linf:0.1", ["accuracy"], out=tmp_path)
        assert runs == ["accuracy", "accuracy"]

    def test_models_of_equal_weights_are_told_apart(self, data, tmp_path, runs):
        linear = nn.Linear(64, 10)

        class Cooled(nn.Module):
            def __init__(self, temperature):
                super().__init__()
                self.linear, self.temperature = linear, temperature

            def forward(self, images):
                return self.linear(images.flatten(1)) / self.temperature

        bottleneck = isthmus.bottleneck(nn.Flatten(), 10, "vib", dim=3, features=64)
        models = [nn.Sequential(nn.Flatten(), act, linear) for act in (nn.ReLU(), nn.Tanh())]
        models += [Cooled(1.0), Cooled(1.01), bottleneck]
        for model in models:
            isthmus.audit(model, *data, "linf:0.1", ["accuracy"], out=tmp_path / "a")
        bottleneck.samples = 20
        isthmus.audit(bottleneck, *data, "linf:0.1", ["accuracy"], out=tmp_path / "a")
        assert runs == ["accuracy"] * 6
        isthmus.audit(bottleneck, *data, "linf:0.1", ["accuracy"], out=tmp_path / "a")
        assert runs == ["accuracy"] * 6


class Jittery(nn.Module):
    """Right by a hair, with noise of its own: a single pass is often wrong, the average hardly ever."""

    def __init__(self, draw=torch.randn_like):
        super().__init__()
        self.draw = draw

    def forward(self, images):
        sums = images.flatten(1).sum(1, keepdim=True) - 32
        logits = torch.cat([-sums, sums], 1)
        return logits + self.draw(logits)


class TestModelsThatAnswerAtRandom:
    @pytest.fixture
    def tossed(self):
        images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        return images, (images.flatten(1).sum(1) > 32).long()

    def test_they_are_averaged_and_it_is_said(self, tossed):
        result = isthmus.audit(Jittery(), *tossed, "linf:0.001", ["accuracy"]).results["accuracy"]
        assert "Other checks average 12 draws" in result.reason
        assert result.details["draws"] == 12

    @pytest.mark.parametrize(
        "draw",
        [
            torch.randn_like,
            lambda x: torch.as_tensor(np.random.standard_normal(x.shape)).float(),  # noqa: NPY002
            lambda x: random.gauss(0, 1) * torch.tensor([0.0, 1.0]),
        ],
    )
    def test_an_audit_repeats_and_leaves_the_global_generators_alone(self, tossed, draw):
        audits, fgsm = [], {"name": "robustness", "levels": 1, "attacks": ["fgsm"]}
        for _ in range(2):
            state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
            audits.append(isthmus.audit(Jittery(draw), *tossed, "linf:0.01", ["accuracy", fgsm]).results)
            assert torch.equal(torch.get_rng_state(), state[0])
            assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
            assert random.getstate() == state[2]
            random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        for name in ("accuracy", "robustness"):
            assert audits[0][name].metrics == audits[1][name].metrics

    def test_attacks_do_not_stop_at_a_lucky_draw(self, tossed):
        """A single pass is wrong now and then at any step; only a step that fools the average counts."""
        checks = [{"name": "robustness", "levels": 1, "attacks": ["pgd:20"]}]
        result = isthmus.audit(Jittery(), *tossed, "linf:0.02", checks).results["robustness"]
        margin = (tossed[0].flatten(1).sum(1) - 32).abs()
        truth = float((margin > 0.02 * 64).float().mean())
        assert result.metrics.one("robust_accuracy", mode="mean", norm="linf", eps=0.02).value == pytest.approx(
            truth, abs=0.07
        )
        forward, _ = result.details["modes"]["mean"]["passes"]["pgd"]
        wrong = 64 - round(result.metrics.one("accuracy", mode="mean").value * 64)
        assert forward >= 64 + (64 - wrong) * 21, "all steps, and the judge's looks"


class Broken(nn.Module):
    """A linear model whose logits are NaN on some images."""

    def __init__(self, broken):
        super().__init__()
        self.linear, self.broken = nn.Linear(64, 10), broken

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        return torch.where(self.broken(images), torch.nan, logits)


class TestLogitsThatAreNotFinite:
    @staticmethod
    def dark(images):
        return images.flatten(1).sum(1, keepdim=True) < 18

    def test_they_are_wrong_and_counted(self, data):
        images, _ = data
        labels = torch.zeros(100, dtype=torch.long)  # argmax of NaN would be class 0
        count = int(self.dark(images).sum())
        assert 0 < count < 50
        found = isthmus.audit(Broken(self.dark), images, labels, "linf:0.1", CHECKS).results
        assert not found["accuracy"].arrays["correct"][self.dark(images)[:, 0].numpy()].any()
        assert found["accuracy"].metrics.one("not_finite", mode="mean").value == count / 100
        assert found["calibration"].status is Status.WARN
        assert f"are left out: {count}" in found["calibration"].reason
        assert found["information"].status is Status.ERROR
        assert f"{count} of 100 images have logits that are NaN" in found["information"].reason

    def test_nothing_finite_is_an_error_of_the_model(self, data):
        with pytest.raises(ModelError, match="NaN or infinities on"):
            isthmus.audit(Broken(lambda x: torch.ones(len(x), 1) > 0), *data, "linf:0.1", ["accuracy"])


class TestWhatIsHandedIn:
    @pytest.mark.parametrize(
        "change",
        [
            lambda x, y: (x, y.tolist()),
            lambda x, y: (x, y.numpy()),
            lambda x, y: (x, y.to(torch.uint8)),
            lambda x, y: (x, y.to(torch.int16)),
            lambda x, y: (x, y.to(torch.int32)),
            lambda x, y: (x.double(), y),
            lambda x, y: (x.clone().requires_grad_(), y),
        ],
    )
    def test_types_that_mean_the_same(self, model, data, change):
        given = isthmus.audit(model, *change(*data), "linf:0.1", CHECKS)
        assert given.record.data_hash == isthmus.audit(model, *data, "linf:0.1", []).record.data_hash
        statuses = [result.status for result in given.results.values()]
        assert Status.ERROR not in statuses

    def test_half_precision_is_judged_in_float32(self, model, data):
        seen = set()
        model = nn.Sequential(model, nn.Identity())
        model.register_forward_pre_hook(lambda _, args: seen.add(args[0].dtype))
        isthmus.audit(model, data[0].half(), data[1], "linf:0.1", ["accuracy"])
        assert seen == {torch.float32}

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"model": lambda x: x}, ModelError, "is an nn.Module .* got function"),
            ({"model": Broken}, ModelError, "is an nn.Module .* got the class Broken"),
            ({"labels": [[1], [2, 3]]}, DataError, "labels must be .* got list"),
            ({"labels": ["a"] * 100}, DataError, "labels must be .* got list"),
            ({"labels": torch.tensor(3)}, DataError, "labels must be integers of shape N"),
            (
                {"options": isthmus.AuditOptions(indices=[0, 1])},
                DataError,
                "indices must be integers of shape N, one for each of 100 images",
            ),
            ({"budget": "ful"}, ConfigError, "no budget 'ful'. Did you mean 'full'"),
            ({"threat": 0.1}, ConfigError, "A threat is an object"),
            ({"options": isthmus.AuditOptions(batch_size=0)}, ConfigError, "batch_size"),
            ({"checks": ["accuracy", {"name": "accuracy", "level": 0.9}]}, ConfigError, "'accuracy' is given twice"),
            ({"checks": [{"name": "accuracy", "level": 1.0}]}, ConfigError, "level"),
            ({"checks": [{"name": "accuracy", "level": 0.0}]}, ConfigError, "level"),
        ],
    )
    def test_what_does_not_fit_is_explained(self, model, data, options, error, message):
        arguments = {"model": model, "images": data[0], "labels": data[1], "threat": "linf:0.1", "checks": []}
        with pytest.raises(error, match=message):
            isthmus.audit(**arguments | options)

    def test_training_flags_are_put_back(self, data):
        model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 10)).train()
        model[1].eval()
        before = model[1].running_mean.clone()
        isthmus.audit(model, *data, "linf:0.1", ["accuracy"])
        assert [module.training for module in model.modules()] == [True, True, False, True, True]
        assert torch.equal(model[1].running_mean, before)


class TestPositions:
    def test_results_go_with_the_image_not_with_its_place(self, data):
        torch.manual_seed(0)
        bottleneck = isthmus.bottleneck(nn.Flatten(), 10, "vib", dim=3, features=64)
        images, order = data[0], torch.randperm(100)
        labels = bottleneck(images).argmax(1)
        labels[:10] = data[1][:10]
        checks = ["accuracy", ROBUSTNESS]
        one = isthmus.audit(bottleneck, images, labels, "linf:0.1", checks).results
        other = isthmus.audit(
            bottleneck, images[order], labels[order], "linf:0.1", checks, options=isthmus.AuditOptions(indices=order)
        ).results
        assert one["accuracy"].metrics == other["accuracy"].metrics
        for name in ("robust", "stochastic_robust"):
            a, b = one["robustness"].arrays[name], other["robustness"].arrays[name]
            np.testing.assert_array_equal(a[:, order.numpy()], b)

    def test_keys_come_from_the_data_sets_positions(self, data):
        def keys(**options):
            images, labels = data
            context = Context(
                model=nn.Flatten(), images=images, labels=labels, num_classes=10, threat=isthmus.Linf(0.1), **options
            )
            return context.keys

        assert torch.equal(keys(), keys(indices=torch.arange(100)))
        assert torch.equal(keys(indices=torch.arange(99, -1, -1)), keys().flip(0))
        assert not torch.equal(keys(), keys(seed=1))

    def test_a_part_of_the_test_split_keeps_its_places_and_says_how_it_was_chosen(self, tmp_path, monkeypatch, caplog):
        asked = []
        audit = auditing.audit
        monkeypatch.setattr(auditing, "audit", lambda *a: (asked.append(a[-1]), audit(*a))[1])
        (tmp_path / "some_nets.py").write_text(
            "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        test = Digits().load().test
        for count, chosen, indices in [
            (30, "balanced first 30 of the test split", balanced(test.labels)[:30]),
            (10**6, "all", torch.arange(len(test))),
            (None, "all", torch.arange(len(test))),
        ]:
            folder = tmp_path / str(count)
            audit_run(ModelSource(model="some_nets:build", data="digits", count=count, out=folder), checks=["accuracy"])
            assert results.load_record(folder / "audit").settings["images"] == chosen
            assert torch.equal(asked[-1].indices, indices)
            assert results.load_record(folder / "audit").n == len(indices)
        notes = [record.getMessage() for record in caplog.records if "--n" in record.getMessage()]
        assert notes == [f"digits has {len(test)} test images, fewer than --n 1000000; all of them are used."]


def test_an_unexpected_error_leaves_its_traceback_to_debug(model, data, monkeypatch, caplog):
    monkeypatch.setattr(registry.load("checks", "accuracy"), "run", lambda *_: 1 / 0)
    with caplog.at_level(logging.DEBUG, "isthmus"):
        isthmus.audit(model, *data, "linf:0.1", ["accuracy"])
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.levelno == logging.DEBUG
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.slow  # tests/core/test_ray_cluster.py is the quick one
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # Ray's own
def test_workers_on_a_cluster_find_what_one_process_finds(model, data, ray_nodes):
    alone = isthmus.audit(model, *data, isthmus.Linf(0.1), checks=["accuracy", ROBUSTNESS])
    shared = isthmus.audit(
        model,
        *data,
        isthmus.Linf(0.1),
        checks=["accuracy", ROBUSTNESS],
        options=isthmus.AuditOptions(cluster=Cluster(ray_nodes.address)),
    )
    for name, result in alone.results.items():
        other = shared.results[name]
        assert other.metrics == result.metrics
        assert other.details == result.details
        assert all(np.array_equal(other.arrays[key], array, equal_nan=True) for key, array in result.arrays.items())


def test_progress_never_runs_backwards_where_parts_of_a_check_count_anew():
    seen = []
    reporter = CheckProgress(lambda *step: seen.append(step))
    for check in ("ood_detection", "accuracy"):
        reporter.start(check)
        for done in (50, 100, 3, 40, 100):
            reporter(done, 100)
    assert [(name, done / total) for name, done, total in seen if name == "ood_detection"] == [
        ("ood_detection", share) for share in (0.0, 0.5, 1.0, 1.0)
    ]


def test_the_bar_of_an_audit_covers_all_its_checks_by_their_typical_duration():
    seen = []
    report = over_all(["diagnosis", "accuracy"], lambda *update: seen.append(update))
    for step in (("diagnosis", 0, 1), ("diagnosis", 5, 10), ("accuracy", 0, 1), ("accuracy", 1, 4)):
        report(*step)
    assert [round(fraction * 21, 6) for fraction, _ in seen] == [0, 10, 20, 20.25]
    assert seen[1][1] == "diagnosis, 50% of its budget"
    assert seen[3][1] == "accuracy"


def test_the_argument_progress_has_precedence_over_the_option(model, data):
    seen, ignored = [], []
    options = isthmus.AuditOptions(progress=lambda *step: ignored.append(step))
    isthmus.audit(model, *data, "linf:0.1", ["accuracy"], options=options, progress=lambda *step: seen.append(step))
    assert {check for check, _, _ in seen} == {"accuracy"}
    assert not ignored
    isthmus.audit(model, *data, "linf:0.1", ["accuracy"], options=options, progress=False)
    assert not ignored


def test_the_adversarial_examples_of_an_audit_can_be_verified(model, data, tmp_path):
    images, labels = data
    checks = [{"name": "diagnosis", "passes": 300, "examples": 30}]
    audit = isthmus.audit(model, images, labels, "linf:0.02", checks=checks, out=tmp_path)
    done = isthmus.verify(tmp_path / "adversarial.safetensors", model, images=images[:30], labels=labels[:30])
    assert done.agrees
    assert (done.n, str(done.threat)) == (30, "linf:0.02")
    assert done.verified == audit.verdict.corrected
