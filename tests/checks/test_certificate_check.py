"""The check of certificates: brackets, what is not attempted, and its file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import isthmus
from isthmus.attacks.threats import L1, Linf
from isthmus.certificates import CertifiedResult, verify_certificates
from isthmus.checks import Certificate
from isthmus.checks.certificate import CERTIFICATE
from isthmus.checks.context import Context
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Status
from isthmus.report import headlines
from isthmus.report.sections import certificate as page
from tests.certificates.small_networks import make, pictures

THREAT = Linf(0.03)


def context_of(model, threat=THREAT, n=16, **options):
    images = pictures(n, 0)
    labels = make("dense", 0)(images).argmax(1)
    labels[0] = (labels[0] + 1) % 3  # a clean error
    return Context(model.eval(), images, labels, 3, threat, **options)


@pytest.fixture(scope="module")
def result():
    return Certificate().run(context_of(make("dense", 0)))


def test_the_result_is_a_bracket(result):
    at = {"mode": "mean", "norm": "linf", "eps": 0.03}
    lower, upper, undecided = (
        result.metrics.one(name, **at) for name in ("certified_accuracy", "robust_accuracy", "undecided")
    )
    assert result.status is Status.MEASURED
    assert 0.5 < lower.value <= upper.value <= 15 / 16
    assert abs(lower.value + undecided.value - upper.value) < 1e-9
    assert lower.n == 16
    assert lower.interval is not None
    assert result.arrays["broken"][0]
    assert not (result.arrays["broken"] & result.arrays["certified"]).any()
    assert ((result.arrays["margins"] > 0).all(1) == result.arrays["certified"]).all()
    assert ((result.arrays["method"] != "") == result.arrays["certified"]).all()
    assert sum(result.details["certified_by"].values()) == result.arrays["certified"].sum()
    assert "at least" in result.reason


def test_examples_that_the_diagnosis_broke_are_not_tried():
    model = make("dense", 0)
    context = context_of(model)
    wrong = int((model(context.images).argmax(1) == context.labels).nonzero()[-1])
    arrays = {
        "correct": torch.ones(16, dtype=torch.bool).numpy(),
        "broken": torch.tensor([0, wrong]).numpy(),
        "adversarial": context.images[[0, wrong]].numpy(),
    }
    diagnosis = CheckResult(check="diagnosis", status=Status.PASS, reason="", metrics=[], arrays=arrays)
    found = Certificate().run(context_of(model, results={"diagnosis": diagnosis}))
    assert found.arrays["broken"][[0, wrong]].all()
    assert found.details["attacks"][:2] == ["clean", "diagnosis"]


@pytest.mark.parametrize(
    ("model", "threat", "options", "reason"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ELU(), nn.Linear(8, 3)),
            THREAT,
            {},
            r"cannot certify: 2 \(ELU\)",
        ),
        (make("dense", 0), L1(1.0), {}, "not attempted: there are no bounds for ℓ1"),
        (make("dense", 0), THREAT, {"most_activations": 5}, "not attempted: 6 layers with 16 activations"),
    ],
)
def test_what_is_not_attempted_is_skipped_with_the_reason(model, threat, options, reason):
    found = Certificate(**options).run(context_of(model, threat))
    assert found.status is Status.SKIPPED
    assert not len(found.metrics)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.reason)


def test_an_audit_keeps_shows_and_verifies_certificates(tmp_path):
    model, images = make("dense", 0), pictures(16, 0)
    labels = model(images).argmax(1)
    audit = isthmus.audit(model, images, labels, THREAT, ["certificate"], out=tmp_path)
    stored = CertifiedResult.load(tmp_path / CERTIFICATE)
    assert audit.certified_accuracy.value == stored.lower.value
    assert verify_certificates(stored, model).agrees
    shown = headlines.headlines([audit._audited()])
    assert shown[headlines.CERTIFIED] == [audit.certified_accuracy]
    section = page.section({"net": audit.results["certificate"]})
    row = section.blocks[0].rows[0]
    assert row[0] == "net"
    assert row[1].value == stored.lower.value
    assert section.headlines["net"].metric == audit.certified_accuracy
    audit.save(tmp_path / "page.html")
    assert "How robust is it provably?" in (tmp_path / "page.html").read_text("utf-8")
    without = isthmus.audit(model, images, labels, THREAT, ["accuracy"])
    with pytest.raises(ConfigError, match="certificate"):
        _ = without.certified_accuracy
