"""The verb ``isthmus study``: what it prints, and how it fails."""

import pytest

from isthmus.cli.app import run
from isthmus.studies import catalogue


def test_without_a_name_it_says_what_there_is(capsys):
    assert run(["study"], debug=False) == 0
    lines = capsys.readouterr().out.replace("\n  ", " ").splitlines()
    assert [line.partition(": ")[0] for line in lines] == catalogue.names()
    assert all(line.partition(": ")[2] for line in lines)


def test_studies_are_listed_with_everything_else(capsys):
    assert run(["list", "studies"], debug=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == catalogue.names()


def test_it_ends_with_findings_and_the_page(capsys, tmp_path):
    done = run(["study", "closer-look/figure-6", "points=50", "--scale", "tiny", "--out", str(tmp_path)], debug=False)
    assert done == 0
    *findings, page = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in findings] == ["claim", "claim"]
    assert findings[0].startswith("claim: supported: The label can be predicted")
    assert findings[1].startswith("claim: undecided: ")
    assert page == f"page: {tmp_path / 'closer-look' / 'figure-6' / 'tiny.html'}"
    assert (tmp_path / "closer-look" / "figure-6" / "tiny.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["closer-look/figure-12"], "There is no study 'closer-look/figure-12'. Did you mean"),
        (["closer-look/figure-6", "--scale", "huge"], "There is no scale 'huge'"),
        (["closer-look/figure-6", "point=5"], "Did you mean 'points'"),
        (["closer-look/figure-6", "points"], "An override is written key=value"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, message, capsys, tmp_path):
    assert run(["study", *arguments, "--out", str(tmp_path)], debug=False) == 2
    assert message in capsys.readouterr().err
