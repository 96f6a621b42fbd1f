"""The short form of `make faults`: training is killed, its disk is full, and nothing is lost.

tests/training/test_resume.py tests both without the command line.
"""

import pytest

from benchmarks import faults


@pytest.mark.slow
def test_training_that_is_killed_or_has_no_space_loses_nothing(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # one of two test processes has one core
    monkeypatch.setitem(faults.RECIPE["data"], "train_limit", 200)
    rows = faults.measure(moments=1, sizes=1, only=("kill", "disk"), verbs=("train",))
    assert [row.fault for row in rows] == ["killed", "disk full"]
    assert rows[0].tried == 1
    for row in rows:
        assert not row.lost, row.notes
        assert not row.tracebacks, row.notes
        assert row.fault == "killed" or row.said == row.tried, row.notes
