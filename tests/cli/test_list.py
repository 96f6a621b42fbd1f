"""``isthmus list``."""

import pytest

from tests.cli.commands import isthmus, isthmus_process


def test_list_names_what_there_is(home):
    done = isthmus("list", "objectives", cwd=home)
    assert " ".join(done.stdout.split()) == (
        "objectives: bidirectional, catgen, ceb, denoising, deterministic, donsker_varadhan, energy_based, "
        "f_divergence, hierarchical, multiscale, nonlinear_ib, predictive, vib"
    )


@pytest.mark.parametrize("columns", ["80", "40", ""])  # without it, output to a pipe has 80
def test_list_breaks_lines_between_words(tmp_path, columns):
    call = isthmus if columns else isthmus_process
    lines = call("list", cwd=tmp_path, COLUMNS=columns).stdout.splitlines()
    assert max(map(len, lines)) <= int(columns or 80)
    words = {word.strip(",") for line in lines for word in line.split()}
    assert {"donsker_varadhan", "multitargeted", "closer-look/figure-10", "rate-distortion/figure-6"} <= words
