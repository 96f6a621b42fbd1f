"""The robust accuracy of an audit is one number: in the results, on the page, in the terminal, in JSON, when cited."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import isthmus
from isthmus.core.format import percent
from isthmus.report import comparison, page, scorecard, terminal
from isthmus.report.citation import citations
from isthmus.report.document import document
from isthmus.report.loading import AuditedModel, load
from isthmus.report.verdicts import verdicts
from tests.audits.test_audit import data  # noqa: F401

EPS, N = 0.1, 16
ROBUSTNESS = {"name": "robustness", "levels": 2, "attacks": ["apgd:10"]}
DIAGNOSIS = {"name": "diagnosis", "passes": 300, "sample": 8}


@pytest.fixture(scope="module")
def folder(data: tuple[torch.Tensor, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """An audit of a small bottleneck in both modes; the robustness check is named before the diagnosis."""
    torch.manual_seed(0)
    images, labels = data
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU())
    backbone.features = 32
    model = isthmus.bottleneck(backbone, num_classes=10, objective=isthmus.objectives.VIB(rho=3), dim=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(images, labels).total.backward()
        optimizer.step()
    out = tmp_path_factory.mktemp("one") / "audit"
    isthmus.audit(model, images[:N], labels[:N], f"linf:{EPS}", [ROBUSTNESS, DIAGNOSIS], out=out)
    torch.save(model, out.parent / "model.pt")
    return out


@pytest.fixture(scope="module")
def audited(folder: Path) -> AuditedModel:
    return load(folder)


def test_everything_shows_the_corrected_accuracy_of_the_worse_mode(audited: AuditedModel) -> None:
    audit = isthmus.Audit(audited.record, dict(audited.results))
    number, diagnosis, robustness = audit.robust_accuracy, audit.results["diagnosis"], audit.results["robustness"]
    assert (number.n, set(diagnosis.details["modes"])) == (N, {"mean", "stochastic"})
    mode = diagnosis.details["mode"]
    for each in ("mean", "stochastic"):
        at = {"mode": each, "norm": "linf", "eps": EPS}
        corrected, curve = (
            result.metrics.one(name, **at)
            for result, name in ((diagnosis, "corrected_accuracy"), (robustness, "robust_accuracy"))
        )
        assert (curve.value, curve.n, curve.interval) == (corrected.value, corrected.n, corrected.interval)
        arrays = [f"{'stochastic_' if each == 'stochastic' else ''}{name}" for name in ("robust", "corrected_robust")]
        np.testing.assert_array_equal(robustness.arrays[arrays[0]][-1], diagnosis.arrays[arrays[1]])
        if each == mode:
            assert corrected.value == number.value
    shown = f"{percent(number.value)}"
    (banner,) = verdicts([audited])
    assert (banner.corrected.value, banner.mode) == (number.value, f"{mode} mode")
    assert banner.note.startswith(f"{mode} mode; ")
    (cited,) = citations([audited])
    assert cited.replace("\u00a0", " ").startswith(audit.citation)
    assert f"in {mode} mode" in audit.citation
    assert shown in audit.citation
    (verdict,) = document([audited], Path("page.html"))["verdicts"]
    assert (verdict["corrected"]["value"], verdict["mode"]) == (number.value, mode)
    answers = {
        line.anchor: line.answers[0]
        for line in scorecard.questions(page.sections([audited]), [audited])
        if line.answers
    }
    assert {answers[f"check-{check}"].cell.text for check in ("diagnosis", "robustness")} == {shown}
    curve_end = page.sections([audited])["robustness"].blocks[0].series[("mean", "stochastic").index(mode)].y[-1]
    assert curve_end == number.value
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.block([audited]))
    words = console.export_text()
    assert f"({mode} mode)" in words
    assert f"{100 * number.value:.0f}" in words
    assert shown in page.render([audited])
    assert comparison.mode_of(audited) == mode


def test_results_that_use_the_diagnosis_follow_it(folder: Path, data, monkeypatch, caplog) -> None:  # noqa: F811
    model = torch.load(folder.parent / "model.pt", weights_only=False)
    images, labels = data[0][:N], data[1][:N]

    def audit(*checks: object) -> isthmus.Audit:
        return isthmus.audit(model, images, labels, f"linf:{EPS}", list(checks), out=folder)

    once = audit(ROBUSTNESS)
    assert once.results["robustness"].details["diagnosed"] == ["mean", "stochastic"], (
        "reused, with the diagnosis of before"
    )
    another = ROBUSTNESS | {"levels": 1}
    assert audit(another).results["robustness"].details["diagnosed"] == ["mean", "stochastic"]
    both = audit(another, DIAGNOSIS | {"sample": 6})
    assert list(both.results) == ["robustness", "diagnosis"]
    assert both.results["robustness"].details["diagnosed"] == ["mean", "stochastic"]
    audit(DIAGNOSIS)
    assert "robustness" in caplog.text
    assert not (folder / "robustness.json").exists()
