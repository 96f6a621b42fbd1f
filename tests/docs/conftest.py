"""The built site, once for all tests of a process."""

import os
import subprocess
import sys

import pytest

from tests.docs.doc_pages import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder ISTHMUS_SITE, which ``make test`` has just built, or a build."""
    if built := os.environ.get("ISTHMUS_SITE"):
        return ROOT / built
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out
