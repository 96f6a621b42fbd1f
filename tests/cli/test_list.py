"""``isthmus list``."""

import pytest

from isthmus.attacks import suites
from isthmus.cli.list_names import KINDS, _entries
from isthmus.cli.options import SUITES
from isthmus.core import registry
from tests.cli.commands import isthmus, isthmus_process


def test_list_describes_each_name_of_a_kind_and_its_options(tmp_path):
    done = isthmus("list", "attacks", cwd=tmp_path, COLUMNS="80")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == registry.names("attacks")
    words = " ".join(done.stdout.split())
    assert "fgsm FGSM: one step of size ε of steepest ascent (Goodfellow" in words
    assert "random_start=true, loss=ce, targets=none, eot=1 race Racing" in words


def test_list_knows_suites_augmentations_and_studies():
    assert set(SUITES) | {*suites.IN_L1.values()} == {*suites.SUITES}
    entries = {kind: {name: (about, options) for name, about, options in _entries(kind)} for kind in KINDS}
    assert entries["suites"]["standard"][1] == (
        "apgd (loss=ce), apgd (loss=dlr, targets=9), fab (targets=9), square:5000"
    )
    assert entries["augmentations"]["autoaugment"][0] == "autoaugment=published, crop_flip=true, cutout=16"
    assert entries["studies"]["ceb/detection"][0].endswith("?")
    assert all(about for kind in KINDS for about, _ in entries[kind].values())
    assert entries["objectives"]["vib"][1] == "rho=6.907, kl=closed, normalize=prediction"
    assert entries["checks"]["ood_detection"][1].startswith('outs=[{"name": "uniform_noise"}')


@pytest.mark.parametrize("columns", ["80", "40", ""])  # without it, output to a pipe has 80
def test_list_breaks_lines_between_words(tmp_path, columns):
    call = isthmus if columns else isthmus_process
    lines = call("list", cwd=tmp_path, COLUMNS=columns).stdout.splitlines()
    assert max(map(len, lines)) <= int(columns or 80)
    words = {word.strip(",") for line in lines for word in line.split()}
    assert {"donsker_varadhan", "multitargeted", "closer-look/figure-10", "rate-distortion/figure-6"} <= words
