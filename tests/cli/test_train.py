"""``isthmus train``."""

import json
import os
import subprocess
import sys

from tests.cli.commands import isthmus


def test_a_run_is_trained_with_overrides(home):
    info = json.loads((home / "runs/small/run.json").read_text())
    assert (info["recipe"]["seed"], info["given"]["seed"]) == (3, 3)


def test_a_full_disk_keeps_what_was_done(home, tmp_path):
    """A real limit on file size stands in for the disk: the checkpoint does not fit, the first metrics do."""
    command = ["train", str(home / "small.yaml"), "--out", str(tmp_path / "run")]
    code = "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.argv = sys.argv[1:]; "
    code += "runpy.run_module('isthmus', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "isthmus", *command],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr
    assert (tmp_path / "run" / "run.json").exists()
    assert not list((tmp_path / "run").glob(".checkpoint*"))
    assert isthmus(*command, cwd=tmp_path).returncode == 0
