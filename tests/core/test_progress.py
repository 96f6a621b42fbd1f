"""The progress bar: monotone, with the time left, in terminals and notebooks only."""

import io

import pytest
from rich.console import Console

from isthmus.core import progress


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 100 columns in place of stderr."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    return console.file


def test_a_bar_shows_what_runs_and_the_time_left(terminal):
    with progress.progress_bar("net") as update:
        update(0.25, "[pgd]")
    drawn = terminal.getvalue()
    assert "net: [pgd]" in drawn, "a name is no markup"
    assert " 25%" in drawn
    assert "left: " in drawn


def test_a_bar_never_runs_backwards_or_beyond_its_end(monkeypatch):
    seen = []
    monkeypatch.setattr(progress.Progress, "update", lambda _bar, _task, **given: seen.append(given["completed"]))
    with progress.progress_bar("net", shown=False) as update:
        for fraction in (0.2, 0.1, 0.5, 1.5):
            update(fraction, "")
    assert seen == [0.2, 0.2, 0.5, 1.0]


def test_nothing_is_drawn_without_a_terminal_or_on_request(capsys, terminal):
    with progress.progress_bar("net", shown=False) as update:
        update(0.5, "pgd")
    assert terminal.getvalue() == ""
    assert progress.visible(Console(file=io.StringIO(), force_jupyter=True)), "a notebook is no terminal"
    assert not progress.visible(Console(file=io.StringIO()))
