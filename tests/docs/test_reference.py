"""The reference: a page for each object, whose examples run and cover what is public."""

import inspect
import re

import pytest
from matplotlib import pyplot

import isthmus
from isthmus.attacks import MinimalNorms, RobustResult, SecurityCurve, Threat, Verification
from isthmus.certificates import CertificateVerification, CertifiedResult
from isthmus.core.types import Metric, Metrics
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.hypothesis import Hypothesis
from isthmus.models.paired import Paired
from isthmus.report.changes import AuditComparison
from tests.docs.sessions import REFERENCE, run, sessions

PAGES = [page for page in sorted(REFERENCE.glob("*.md")) if sessions(page)]
SLOW = {"audit-result", "compat", "robust-result", "shift", "studies", "verdict"}
"""Pages that take seconds; ``audit``, ``robust-accuracy`` and the attacks' pages stay."""

CLASSES = {
    "audit-result": [isthmus.Audit],
    "bottleneck-model": [Bottleneck],
    "certify": [CertifiedResult, CertificateVerification],
    "compare": [AuditComparison],
    "hypothesis": [Hypothesis],
    "minimal-norms": [MinimalNorms],
    "paired": [Paired],
    "results": [Metric, Metrics],
    "rho": [isthmus.Rho],
    "robust-result": [RobustResult],
    "run": [isthmus.Run],
    "security-curve": [SecurityCurve],
    "threats": [Threat, isthmus.L1],
    "verify": [Verification],
}


def examples(page):
    return "".join(block.text for block in sessions(page))


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.stem in SLOW else [], id=page.stem) for page in PAGES],
)
def test_examples_give_the_outputs_they_show(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("agg")
    differences = run(page).differences
    pyplot.close("all")
    assert not differences, "\n".join([*differences, "If this is right: python -m tests.docs.sessions " + page.stem])


@pytest.mark.parametrize("name", isthmus.__all__)
def test_every_public_name_has_an_example_and_a_row(name):
    assert any(re.search(rf"isthmus\.{name}\b", examples(page)) for page in PAGES if page.stem != "index")
    assert f"`isthmus.{name}`" in (REFERENCE / "index.md").read_text("utf-8")


@pytest.mark.parametrize("page", CLASSES)
def test_every_public_method_has_an_example(page):
    shown = examples(REFERENCE / f"{page}.md")
    for cls in CLASSES[page]:
        methods = {
            name
            for name, value in vars(cls).items()
            if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property | classmethod))
        }
        assert not {method for method in methods - {"forward"} if f".{method}" not in shown}, cls.__name__
