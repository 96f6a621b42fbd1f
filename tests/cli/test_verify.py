"""``isthmus verify``."""

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from isthmus.audits import attack_file
from isthmus.core.errors import FileError
from tests.cli.commands import FAST, THEIRS, isthmus, named_net


def test_verification_agrees_and_compares_the_examples(net_home, attacked):
    for options, sentence in ((FAST, "identical to the data set"), (FAST[:4], "not compared")):
        done = isthmus("verify", attacked, *options, cwd=net_home)
        assert done.returncode == 0, done.stderr
        assert sentence in done.stdout
        last = done.stdout.splitlines()[-1]
        assert last.startswith("verified: robust accuracy is at most ")
        assert "on these 40 images (SHA-256 " in last
        assert last.endswith("at linf:0.03; which attacks ran is not verified (clean, fgsm, pgd)")


@pytest.mark.parametrize(
    ("threat", "count", "words"),
    [(None, 41, "holds 40 examples, not --n 41"), ("linf:0.02", None, "is about linf:0.03")],
)
def test_a_file_about_fewer_images_or_another_threat_is_refused(attacked, threat, count, words):
    attack_file.check_claim(attacked, "linf:0.03", 40)
    with pytest.raises(FileError, match=words):
        attack_file.check_claim(attacked, threat, count)


def test_a_verification_has_the_digest_of_its_examples(net_home, attacked):
    done = attack_file.verify(attacked, named_net(net_home))
    assert done.agrees
    assert len(done.examples) == 64


def test_a_claim_that_does_not_hold_is_exit_code_two(net_home, attacked, tmp_path):
    with safe_open(attacked, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["adversarial"][0] = tensors["images"][tensors["broken"] & (tensors["stage"] > 0)][0].float() / 255
    save_file(tensors, tmp_path / "forged", metadata)
    done = isthmus("verify", tmp_path / "forged", *FAST, cwd=net_home)
    assert done.returncode == 2
    assert "1 × the adversarial image is not misclassified" in done.stdout
    assert "checksum: the file was changed" in done.stdout
    assert done.stderr.startswith("Error: the claim of ")
    other = isthmus("verify", attacked, "--model", "net:build", cwd=net_home)  # other weights: another model
    assert other.returncode == 2


def test_certificates_are_recomputed(tmp_path):
    (tmp_path / "theirs.py").write_text(THEIRS)
    audit = ("audit", "--model", "theirs:trained", "--data", "digits", "--n", 30, "--threat", "linf:0.02")
    done = isthmus(*audit, "--checks", "certificate", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = next(tmp_path.rglob("certificate.safetensors"))
    verified = isthmus("verify", file, "--model", "theirs:trained", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert "verified: robust accuracy is at least " in verified.stdout
    other = isthmus("verify", file, "--model", "theirs:build", cwd=tmp_path)
    assert other.returncode == 2
    assert "the bound does not certify this model's prediction" in other.stdout
    refused = isthmus("verify", file, "--model", "theirs:trained", "--threat", "linf:0.05", cwd=tmp_path)
    assert "is about linf:0.02" in refused.stderr
