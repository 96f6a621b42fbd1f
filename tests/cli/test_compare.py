"""``isthmus compare``."""

import json

import pytest

from tests.cli.commands import isthmus

AUDIT = ("audit", "--data", "digits", "--n", 60, "--checks", "accuracy", "--quiet")


@pytest.fixture(scope="module")
def both(home, tmp_path_factory):
    """A good model, and one that is trained on nothing, on the same images; and the good one on fewer images."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "theirs.py").write_text((home / "theirs.py").read_text())
    for name, model, n in (("good", "theirs:trained", 60), ("bad", "theirs:cut", 60), ("fewer", "theirs:trained", 40)):
        isthmus(*AUDIT, "--n", n, "--model", model, "--out", folder / name, cwd=folder)
    return folder


def test_a_regression_has_an_exit_code_of_its_own(both):
    done = isthmus("compare", "good", "bad", "--markdown", "changes.md", cwd=both)
    assert done.returncode == 7
    assert "is worse than" in " ".join(done.stdout.split())
    assert "**worse**" in (both / "changes.md").read_text("utf-8")
    assert isthmus("compare", "bad", "good", cwd=both).returncode == 0


def test_the_document_is_all_that_is_printed(both):
    done = isthmus("compare", "good", "good", "--json", cwd=both)
    assert done.returncode == 0
    assert json.loads(done.stdout)["regression"] is False


def test_other_images_are_refused(both):
    done = isthmus("compare", "good", "fewer", cwd=both)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: The audits are on different images (")
