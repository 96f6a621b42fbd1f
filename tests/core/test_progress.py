"""The progress bar: monotone, with the time left, in terminals and notebooks only."""

import io
import sys
import types

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


def test_nothing_is_drawn_without_a_terminal_or_on_request(monkeypatch, terminal):
    with progress.progress_bar("net", shown=False) as update:
        update(0.5, "pgd")
    assert terminal.getvalue() == ""
    file = Console(file=io.StringIO())
    monkeypatch.setattr(progress, "Console", lambda stderr: file)
    with progress.progress_bar("net") as update:
        update(0.5, "pgd")
    assert file.file.getvalue() == ""


def started(given):
    """Whether a call with this argument draws, and the function that it reports to."""
    with progress.shown_progress(given, "net", lambda update: update) as report:
        if report is not None:
            report(0.5, "pgd")
        return report


def test_the_outermost_call_draws_a_bar_unless_told_otherwise(terminal):
    def own(fraction, running):
        pass

    assert started(own) is own
    assert started(False) is None
    assert terminal.getvalue() == ""
    assert started(None) is not None
    assert "net: pgd" in terminal.getvalue()
    with progress.reporting() as inside:
        assert not inside
        assert started(None) is None, "a check's attacks do not draw over the audit's bar"
        assert started(own) is own
        assert started(True) is not None
    with progress.reporting() as inside:
        assert not inside


def test_in_a_notebook_a_line_of_text_is_replaced(monkeypatch):
    shown = []
    handle = types.SimpleNamespace(update=lambda content, raw: shown.append(content["text/plain"]))

    def display(content, raw, display_id):
        handle.update(content, raw)
        return handle

    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    notebook = Console(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(progress, "Console", lambda stderr=False, **more: notebook if stderr else Console(**more))
    with progress.progress_bar("net") as update:
        for step in range(100):
            update(step / 100, "pgd")
    assert shown[0].startswith("net")
    assert "left:" in shown[0]
    assert shown[-1] == ""
    assert len(shown) < 50, "twice a second at most"
