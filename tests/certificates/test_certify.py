"""Certification: from cheap to dear, only what attacks left, resumable, and verified again."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import isthmus
from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.threats import L2, Linf
from isthmus.certificates import (
    METHODS,
    CannotCertify,
    CertifiedResult,
    CertifyOptions,
    certification,
    methods,
    verify_certificates,
)
from isthmus.core.errors import ConfigError, DataError, FileError
from isthmus.metrics import wilson
from tests.certificates.small_networks import adversaries, make, pictures

THREAT = Linf(0.02)


@pytest.fixture(scope="module")
def examples():
    model, images = make("dense", 0), pictures(40, 0)
    labels = model(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 3  # clean errors
    return model, images, labels


@pytest.fixture(scope="module")
def bracket(examples):
    model, images, labels = examples
    attacked = robust_accuracy(model, images, labels, THREAT, ["pgd:10"])
    return attacked, isthmus.certify(model, attacked)


def test_every_example_is_broken_certified_or_undecided(bracket):
    attacked, result = bracket
    assert bool((result.broken >= attacked.broken).all())
    assert bool((result.broken.long() + result.certified.long() + result.undecided.long() == 1).all())
    assert result.status.count("certified") == int(result.certified.sum()) > 20
    assert bool((result.margin[result.certified] > 0).all())
    assert bool((result.margins[attacked.broken] == -torch.inf).all()), "no bound is tried on a broken example"
    assert torch.equal(result.adversarial[attacked.broken], attacked.adversarial[attacked.broken])


def test_lower_and_upper_bound_are_fractions_with_intervals(bracket):
    attacked, result = bracket
    lower, upper = result.lower, result.upper
    assert lower.value == int(result.certified.sum()) / 40
    assert attacked.accuracy >= upper.value >= lower.value
    expected = wilson(int(result.certified.sum()), 40)
    assert (lower.interval.low, lower.interval.high) == (expected.low, expected.high)
    assert upper.n == lower.n == 40
    assert "at least" in repr(result)
    assert list(result.by_method) == list(METHODS)
    assert result.by_method["milp"] == lower.value
    rows = result.to_dataframe()
    assert set(rows["status"]) <= {"broken", "certified", "undecided"}


def test_without_attacks_only_clean_errors_are_broken(examples):
    model, images, labels = examples
    options = CertifyOptions(methods=("ibp", "crown-ibp", "crown"))
    result = isthmus.certify(model, images, labels, "linf:0.02", options)
    assert result.broken.tolist() == (model(images).argmax(1) != labels).tolist()
    assert result.attacks == ("clean",)
    assert torch.equal(result.adversarial, images)


@pytest.mark.parametrize("threat", [Linf(0.03), L2(0.2)], ids=str)
def test_no_certified_example_is_broken_by_any_attack(threat):
    certified = 0
    for seed, kind in enumerate(("dense", "max pool", "residual")):
        model, images = make(kind, seed, scale=1.5), pictures(16, seed)
        labels = model(images).argmax(1)
        result = isthmus.certify(model, images, labels, threat)
        for adversarial in adversaries(model, images, labels, threat, 6, seed):
            assert not bool((result.certified & (model(adversarial).argmax(1) != labels)).any())
        attacked = robust_accuracy(model, images, labels, threat, ["pgd:10"])
        assert not bool((result.certified & attacked.broken).any())
        certified += int(result.certified.sum())
    assert certified > 12


def test_dear_methods_run_only_on_what_cheap_ones_left(examples, monkeypatch):
    model, images, labels = examples
    seen = []
    bounds = methods.Problem.bounds

    def recorded(self, names, deadline=float("inf")):
        for found in bounds(self, names, deadline):
            seen.append((found.method, len(self.labels)))
            yield found

    monkeypatch.setattr(methods.Problem, "bounds", recorded)
    result = isthmus.certify(model, images, labels, THREAT, CertifyOptions(batch_size=10))
    by = {name: sum(n for method, n in seen if method == name) for name in METHODS}
    left = {name: int(((result.method < 0) | (result.method > i)).sum()) - 3 for i, name in enumerate(METHODS)}
    assert by["ibp"] == 37
    assert by["crown"] == left["crown-ibp"]
    assert by["alpha-crown"] == left["crown"]


def test_optimised_slopes_certify_more():
    model, images = make("dense", 4, scale=2), pictures(8, 4)
    labels = model(images).argmax(1)
    before, after = (
        isthmus.certify(model, images, labels, Linf(0.1), CertifyOptions(methods=names))
        for names in (("crown",), ("crown", "alpha-crown"))
    )
    assert before.undecided.any()
    assert bool((after.margins >= before.margins).all())
    assert bool((after.margin > before.margin + 1e-3)[before.undecided].any())


def test_the_time_for_an_image_is_limited(examples, monkeypatch):
    model, images, labels = examples
    result = isthmus.certify(model, images, labels, Linf(0.1), CertifyOptions(seconds_per_image=1e-9))
    assert not result.certified.any()
    assert result.complete


def test_an_interrupted_certification_resumes(examples, tmp_path):
    model, images, labels = examples
    path, calls = tmp_path / "certified", []

    def interrupt(done, total):
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    options = CertifyOptions(batch_size=8, save_to=path, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        isthmus.certify(model, images, labels, THREAT, options)
    assert path.exists()
    again = []
    options = dataclasses.replace(options, progress=lambda done, total: again.append((done, total)))
    resumed = isthmus.certify(model, images, labels, THREAT, options)
    assert again[0][0] >= calls[-1]
    assert again[-1] == (40, 40)
    whole = isthmus.certify(model, images, labels, THREAT, CertifyOptions(batch_size=8))
    assert resumed.status == whole.status
    assert torch.allclose(resumed.margins, whole.margins)
    again.clear()
    assert isthmus.certify(model, images, labels, THREAT, options).status == whole.status
    assert not again, "a finished one is returned at once"
    with pytest.raises(FileError, match="other model"):
        isthmus.certify(make("dense", 1), images, make("dense", 1)(images).argmax(1), THREAT, options)


def test_a_result_survives_its_file_and_is_verified(bracket, examples, tmp_path):
    _, result = bracket
    result.save(tmp_path / "certified")
    loaded = CertifiedResult.load(tmp_path / "certified")
    assert loaded.status == result.status
    assert torch.equal(loaded.margins, result.margins)
    assert loaded.threat == result.threat
    verified = verify_certificates(tmp_path / "certified", examples[0])
    assert verified.agrees
    assert verified.confirmed == int(result.certified.sum())
    assert "agrees" in repr(verified)
    content = bytearray((tmp_path / "certified").read_bytes())
    content[-5] ^= 1
    (tmp_path / "certified").write_bytes(content)
    with pytest.raises(FileError, match="checksum"):
        CertifiedResult.load(tmp_path / "certified")


def test_false_certificates_do_not_verify(bracket, examples):
    model, images, _ = examples
    _, result = bracket
    other = verify_certificates(result, make("dense", 7))
    assert not other.agrees
    row = int(result.undecided.nonzero()[0]) if result.undecided.any() else int(result.broken.nonzero()[-1])
    method, margins = result.method.clone(), result.margins.clone()
    method[row], margins[row] = 0, 1.0
    false = verify_certificates(dataclasses.replace(result, method=method, margins=margins), model)
    assert row in false.failures
    both = verify_certificates(dataclasses.replace(result, method=torch.zeros_like(method)), model)
    assert any("at once" in reason for reason in both.reasons)
    moved = dataclasses.replace(result, adversarial=(result.adversarial + 0.5).clamp(0, 1))
    assert any("outside" in reason for reason in verify_certificates(moved, model).reasons)
    clean = dataclasses.replace(result, adversarial=images, labels=model(images).argmax(1))
    assert any("not misclassified" in reason for reason in verify_certificates(clean, model).reasons)


def test_wrong_arguments_are_named(examples, bracket):
    model, images, labels = examples
    with pytest.raises(CannotCertify, match=r"cannot certify: 1 \(ELU\)"):
        isthmus.certify(nn.Sequential(nn.Flatten(), nn.ELU(), nn.Linear(36, 3)), images, labels, THREAT)
    with pytest.raises(ConfigError, match="linf and l2"):
        isthmus.certify(model, images, labels, "l1:1")
    with pytest.raises(ConfigError, match="crown"):
        isthmus.certify(model, images, labels, THREAT, CertifyOptions(methods=("crwn",)))
    with pytest.raises(ConfigError, match="seconds_per_image"):
        isthmus.certify(model, images, labels, THREAT, CertifyOptions(seconds_per_image=0))
    with pytest.raises(ConfigError, match="leave them out"):
        isthmus.certify(model, bracket[0], labels, THREAT)
    with pytest.raises(ConfigError, match="norm"):
        isthmus.certify(model, images, labels)
    with pytest.raises(DataError):
        isthmus.certify(model, images, labels[:5], THREAT)


def test_a_random_model_cannot_be_certified(examples):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(36, 3)

        def forward(self, x):
            return self.linear(x.flatten(1)) + torch.randn(3)

    _, images, labels = examples
    with pytest.raises(CannotCertify, match="not those of its traced layers"):
        isthmus.certify(Noisy(), images, labels, THREAT)


def test_a_part_saved_in_time_is_written(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(certification, "SAVE_EVERY", 0.0)
    model, images, labels = examples
    writes = []
    write = certification.result_file.write
    monkeypatch.setattr(certification.result_file, "write", lambda *given: (writes.append(1), write(*given)))
    isthmus.certify(model, images, labels, THREAT, CertifyOptions(batch_size=10, save_to=tmp_path / "c"))
    assert len(writes) > 3
