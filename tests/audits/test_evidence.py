"""Bundles of evidence: accepted as they were written, and refused with the first thing that does not hold."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import isthmus
from isthmus.attacks.result import RobustResult
from isthmus.audits import AuditOptions, evidence
from isthmus.core import files
from isthmus.core.config import component
from isthmus.core.errors import FileError
from isthmus.models.identity import fingerprint

N = 100


def linear() -> nn.Module:
    """The nearest class mean: the logits of an image are −‖x − mean‖² / 2, up to a constant."""
    images, labels = load_digits(return_X_y=True)
    means = torch.tensor(np.stack([images[labels == k].mean(0) for k in range(10)]) / 16).float()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model[1].weight.data, model[1].bias.data = means, -means.square().sum(1) / 2
    return model.eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return linear()


@pytest.fixture(scope="module")
def audit(model, tmp_path_factory) -> Path:
    """An audit of the first test images of the digits."""
    from isthmus.data.images import as_float
    from isthmus.data.loading import load

    folder, test = tmp_path_factory.mktemp("audit"), load("digits").test
    options = AuditOptions(passes=200, indices=torch.arange(N))
    images, labels = as_float(test.images[:N]), test.labels[:N]
    checks = ["accuracy", "diagnosis", "calibration"]
    isthmus.audit(model, images, labels, "linf:0.1", checks=checks, out=folder, options=options, progress=False)
    return folder


@pytest.fixture(scope="module")
def bundle(audit, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "evidence.zip"
    evidence.bundle(audit, path)
    return path


def verify(path: Path, model: nn.Module, **options) -> evidence.Accepted:
    return evidence.verify(evidence.read(path), model, fingerprint(model), **options)


def forged(bundle: Path, path: Path, change, listed: bool = True) -> Path:
    """The bundle after a change to its unpacked files, with new checksums; ``listed`` renews the manifest too."""
    folder = path.with_suffix("")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    change(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    members = sorted(place for place in folder.iterdir() if place.name != "manifest.json")
    if listed:
        manifest["files"] = {
            place.name: {"sha256": files.sha256(place.read_bytes()), "bytes": place.stat().st_size} for place in members
        }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for place in members:
            archive.write(place, place.name)
    return path


def edited(name: str, *keys, value):
    """A change of one value in a JSON file, sealed again."""

    def change(folder: Path) -> None:
        content = inner = files.read_json(folder / name)
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        files.write_json(folder / name, content)

    return change


def of_state(**columns):
    """A change of columns of the adversarial examples, sealed again."""

    def change(folder: Path) -> None:
        result = RobustResult.load(folder / "adversarial.safetensors")
        changed = {name: make(result) for name, make in columns.items()}
        replace(result, state=replace(result.state, **changed)).save(folder / "adversarial.safetensors")

    return change


def test_a_bundle_is_accepted_as_it_was_written(bundle, model, audit) -> None:
    found = verify(bundle, model, data=component("data", "digits"))
    corrected = json.loads((audit / "diagnosis.json").read_text())["details"]["verdict"]["corrected"]
    assert found.verification.verified == pytest.approx(corrected)
    assert found.verification.examples_match is True
    assert found.record.n == N
    again = bundle.with_name("again.zip")
    assert evidence.bundle(audit, again) == found.digest
    assert again.read_bytes() == bundle.read_bytes()


def test_a_bundle_is_at_most_three_times_its_compressed_adversarial_images(bundle) -> None:
    with zipfile.ZipFile(bundle) as archive:
        images = archive.getinfo("adversarial.safetensors").compress_size
    assert bundle.stat().st_size <= 3 * images


FORGERIES = {
    "another accuracy": (edited("accuracy.json", "metrics", 0, "value", value=0.999), "clean accuracy is 0.999 in the"),
    "another verdict": (
        edited("diagnosis.json", "details", "verdict", "corrected", value=0.9),
        "robust accuracy of the verdict is 0.9",
    ),
    "another threat": (edited("audit.json", "settings", "threat", value="linf:0.2"), "threat is linf:0.2"),
    "another seed": (edited("audit.json", "seed", value=1), "seed is 1"),
    "other data": (edited("audit.json", "data_hash", value="0" * 64), "not those that the audit's data hash"),
    "another model": (edited("audit.json", "model_hash", value="0" * 64), "The model is another one"),
    "a file more": (lambda folder: (folder / "run.py").write_text("import os"), "holds a file 'run.py'"),
    "an image outside the ball": (
        of_state(adversarial=lambda result: 1 - result.state.adversarial),
        "adversarial image is outside the ball",
    ),
    "no diagnosis": (lambda folder: (folder / "diagnosis.json").unlink(), "no result of the check diagnosis"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_the_first_thing_that_does_not_hold_is_named(name, bundle, model, tmp_path) -> None:
    change, words = FORGERIES[name]
    with pytest.raises(evidence.EvidenceError, match=words):
        verify(forged(bundle, tmp_path / "forged.zip", change), model)


def test_a_file_that_the_manifest_does_not_list_is_refused(bundle, model, tmp_path) -> None:
    change = edited("accuracy.json", "reason", value="better")
    with pytest.raises(evidence.EvidenceError, match=r"accuracy\.json is not the file that the manifest lists"):
        verify(forged(bundle, tmp_path / "forged.zip", change, listed=False), model)


def test_predictions_of_another_model_are_refused(bundle, model) -> None:
    other = linear()
    other[1].weight.data *= -1
    with pytest.raises(evidence.EvidenceError, match="The model is another one"):
        verify(bundle, other)
    with pytest.raises(evidence.EvidenceError, match=r"The predictions do not confirm .* \(row 0; "):
        evidence.verify(evidence.read(bundle), other, fingerprint(model))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"PK\x03\x04 damaged"])
def test_another_file_is_refused(content, model, tmp_path) -> None:
    path = tmp_path / "evidence.zip"
    path.write_bytes(content)
    with pytest.raises(FileError, match="not a readable bundle"):
        verify(path, model)


def test_a_member_is_not_unpacked_beyond_its_size(bundle, model, tmp_path) -> None:
    def change(folder: Path) -> None:
        (folder / "accuracy.json").write_bytes(bytes(2**20))

    with pytest.raises(evidence.EvidenceError, match="larger than the manifest states"):
        verify(forged(bundle, tmp_path / "forged.zip", change, listed=False), model)


@pytest.mark.parametrize("seed", range(20))
def test_changed_bytes_are_refused_with_a_sentence(seed, bundle, model, tmp_path) -> None:
    content, rng = bytearray(bundle.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(0, len(content) - 22, 8):
        content[place] ^= int(rng.integers(1, 256))
    (tmp_path / "changed.zip").write_bytes(content[: rng.integers(22, len(content))] if seed % 2 else content)
    with pytest.raises((FileError, evidence.EvidenceError)) as error:
        verify(tmp_path / "changed.zip", model)
    assert len(str(error.value).splitlines()) == 1


def test_a_result_that_is_none_is_named_without_the_temporary_folder(bundle, model, tmp_path) -> None:
    change = edited("accuracy.json", "metrics", 0, "n", value="many")
    with pytest.raises(
        FileError, match=r"not write like this: accuracy\.json is not a result .*metrics\.0\.n"
    ) as error:
        verify(forged(bundle, tmp_path / "forged.zip", change), model)
    assert "isthmus-" not in str(error.value)


def test_without_adversarial_examples_there_is_no_bundle(audit, tmp_path) -> None:
    with pytest.raises(FileError, match="no audit with adversarial examples"):
        evidence.bundle(tmp_path, tmp_path / "evidence.zip")
