"""``isthmus bundle``, and ``isthmus verify`` of a bundle, with the model in a process of its own."""

import json
import zipfile
from dataclasses import replace

import pytest

from isthmus.attacks.result import RobustResult
from isthmus.audits.target import ModelSource, named_data
from isthmus.core import files
from tests.cli.commands import FAST, isthmus

HOSTILE = """
import net, sys
import torch
from isthmus.attacks import verify
from isthmus.audits import evidence
def build():
    verify._failures = lambda *_: {}                     # no prediction is wrong
    evidence.verify = lambda *_: "accepted"
    torch.equal = lambda *_: True
    torch.Tensor.argmax = lambda self, *_: torch.zeros(len(self), dtype=torch.int64)
    print("to stdout, where the answers are expected")
    return net.build()
"""


@pytest.fixture(scope="module")
def bundled(net_home):
    audit = ("audit", *FAST, "--threat", "linf:0.03", "--n", 60, "--checks", "accuracy,diagnosis", "--passes", 100)
    done = isthmus(*audit, "--out", "audited", "--quiet", cwd=net_home)
    assert done.returncode in (0, 5), done.stderr
    done = isthmus("bundle", "audited", "--out", "evidence.zip", cwd=net_home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "bundle: evidence.zip"
    (net_home / "hostile.py").write_text(HOSTILE)
    return net_home


def test_a_bundle_is_accepted_with_its_model(bundled):
    done = isthmus("verify", "evidence.zip", *FAST, "--n", 60, cwd=bundled)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("verified: robust accuracy is at most ")
    assert any(line.endswith("identical to the data set") for line in lines)
    assert isthmus("bundle", "audited", "--out", "evidence.zip", cwd=bundled).returncode == 2, "it exists"


def test_a_model_that_patches_the_verification_changes_nothing(bundled):
    """Forged: every clean image counts as correct, as the results state too. The model hides nothing by its patches."""
    folder = bundled / "forged"
    with zipfile.ZipFile(bundled / "evidence.zip") as archive:
        archive.extractall(folder)
    result = RobustResult.load(folder / "adversarial.safetensors")
    wrong = ~result.correct
    assert wrong.any()
    state = result.state
    forged = replace(
        state, correct=wrong | ~wrong, broken=state.broken & ~wrong, stage=state.stage.masked_fill(wrong, -1)
    )
    result = replace(result, state=forged)
    result.save(folder / "adversarial.safetensors")
    for check in ("accuracy", "diagnosis"):
        content = files.read_json(folder / f"{check}.json")
        for metric in content["metrics"]:
            if metric["name"] in ("accuracy", "clean_accuracy") and "class" not in metric["coords"]:
                metric["value"] = 1.0
            if metric["name"] == "corrected_accuracy":
                metric["value"] = result.accuracy
        if check == "diagnosis":
            content["details"]["verdict"]["corrected"] = result.accuracy
        files.write_json(folder / f"{check}.json", content)
    members = [place for place in sorted(folder.iterdir()) if place.name != "manifest.json"]
    listed = {p.name: {"sha256": files.sha256(p.read_bytes()), "bytes": p.stat().st_size} for p in members}
    with zipfile.ZipFile(bundled / "forged.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": 1, "files": listed}))
        for place in members:
            archive.write(place, place.name)
    done = isthmus("verify", "forged.zip", "--model", "hostile:build", "--weights", "weights.safetensors", cwd=bundled)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: forged.zip is not accepted. The predictions do not confirm")
    assert "is recorded as robust, but its clean image is misclassified" in done.stderr


def test_a_model_that_cannot_be_loaded_is_one_sentence(bundled):
    done = isthmus("verify", "evidence.zip", "--model", "net:nothing", cwd=bundled)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "nothing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_classes_that_a_command_names_are_those_of_the_data_that_a_bundle_is_compared_with():
    assert named_data(ModelSource(model="nets:build", data="digits", classes=("7", "1"))).classes == ("7", "1")
