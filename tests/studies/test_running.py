"""A study from its name to its page: kept experiment by experiment, resumed after a kill, drawn without torch."""

import json
import shlex
import subprocess
import sys

import pytest

from isthmus.core.errors import ConfigError, FileError
from isthmus.core.ray_cluster import Cluster
from isthmus.studies import page, running
from isthmus.studies.closer_look import toy_experiments
from isthmus.studies.display import Display
from isthmus.studies.running import run_study
from isthmus.studies.study import StudyRecord

NAME = "closer-look/figure-5"
QUICK = {"steps": 5, "batch_size": 32, "points": 60, "std_offsets": [0.0]}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("studies")
    return out, *run_study(NAME, "tiny", QUICK, out, show_progress=False)


def test_it_leaves_a_record_and_a_page(done):
    out, record, html = done
    assert html == out / NAME / "tiny.html"
    assert StudyRecord.load(out / NAME / "tiny.json") == record
    assert record.complete
    assert len(record.experiments) == record.total == 2 * 3
    assert record.departures["steps"] == (5, 1000)
    text = html.read_text("utf-8")
    assert all(each.claim in text for each in record.claims)
    assert "isthmus study closer-look/figure-5 --scale tiny" in text
    assert "<svg" in text


def test_what_was_measured_is_not_measured_again(done, monkeypatch):
    out, record, html = done
    before = html.read_bytes()
    monkeypatch.setattr(toy_experiments, "train", lambda *_: pytest.fail("trained again"))
    again, _ = run_study(NAME, "tiny", QUICK, out, show_progress=False)
    assert again.experiments == record.experiments
    assert again.seconds == pytest.approx(record.seconds)
    assert len(html.read_bytes()) == pytest.approx(len(before), abs=50)  # the date and the commit may differ


def test_a_killed_study_goes_on_with_the_same_numbers(done, tmp_path, monkeypatch):
    _, record, _ = done
    true, calls = toy_experiments.measure, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(toy_experiments, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(NAME, "tiny", QUICK, tmp_path, show_progress=False)
    half = StudyRecord.load(tmp_path / NAME / "tiny.json")
    assert (len(half.experiments), half.total, half.complete, half.claims) == (3, 6, False, ())
    assert "Not finished: 3 of 6 experiments" in page.render(half)
    whole, _ = run_study(NAME, "tiny", QUICK, tmp_path, show_progress=False)
    assert len(calls) == 4 + 3
    assert whole.experiments == record.experiments


def test_other_options_are_other_cells(done):
    out, record, _ = done
    more, _ = run_study(NAME, "tiny", [f"{key}={value}" for key, value in {**QUICK, "seeds": 3}.items()], out, False)
    assert len(more.experiments) == 9
    assert all(more.experiments[name] == kept for name, kept in record.experiments.items())
    assert "seeds=3" in page.command(more)


def test_the_command_to_resume_is_whole_and_quoted(tmp_path):
    out = tmp_path / "my studies"
    record, html = run_study(NAME, "tiny", {**QUICK, "seeds": 1}, out, show_progress=False)
    said = shlex.split(page.command(record))
    assert said[:5] == ["isthmus", "study", NAME, "--scale", "tiny"]
    assert said[-2:] == ["--out", str(out)]
    assert f"&#39;{out}&#39;" in html.read_text("utf-8")
    crowd = running._options("runs", 2, None)
    assert crowd == ("--out", "runs", "--jobs", "2")
    ray = running._options("runs", 1, Cluster("auto", workers=3, cpus=2))
    assert ray == ("--out", "runs", "--executor", "ray", "--address", "auto", "--jobs", "3", "--worker-cpus", "2")


def test_the_page_is_drawn_from_the_record_without_torch(done, tmp_path):
    out, _, html = done
    (tmp_path / "torch.py").write_text("raise ImportError('the page imported torch')")
    record, again = out / NAME / "tiny.json", tmp_path / "again.html"
    code = f"from isthmus.studies import page; page.write({str(record)!r}, {str(again)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(tmp_path)})
    run_study(NAME, "tiny", QUICK, out, show_progress=False)
    assert "<svg" in again.read_text("utf-8")
    assert again.read_text("utf-8").count("<svg") == html.read_text("utf-8").count("<svg")


def test_a_damaged_cell_is_told(tmp_path):
    run_study(NAME, "tiny", {**QUICK, "seeds": 1}, tmp_path, show_progress=False)
    kept = next((tmp_path / "experiments").glob("*.json"))
    kept.write_text(kept.read_text()[:40])
    with pytest.raises(FileError, match="not a readable JSON file"):
        run_study(NAME, "tiny", {**QUICK, "seeds": 1}, tmp_path, show_progress=False)
    kept.write_text(json.dumps({"about": {}, "value": {}, "seconds": 1}))
    with pytest.raises(FileError, match="not the measurement that its name says"):
        run_study(NAME, "tiny", {**QUICK, "seeds": 1}, tmp_path, show_progress=False)


def test_a_record_of_something_else_is_told(tmp_path):
    path = tmp_path / "small.json"
    path.write_text('{"study": "closer-look/figure-5", "format": 2}')
    with pytest.raises(FileError, match="no record of a study"):
        page.write(path, tmp_path / "page.html")


@pytest.mark.parametrize(
    ("name", "scale", "overrides", "message"),
    [
        ("closer-look/figure-55", "tiny", [], "Did you mean"),
        (NAME, "large", [], "There is no scale 'large'. There is: paper, small, tiny"),
        (NAME, "tiny", ["seed=3"], "Did you mean 'seeds'"),
        (NAME, "tiny", ["seeds=0"], "greater than 0"),
        (NAME, "tiny", ["betas=[2]"], "less than 1"),
        ("closer-look/figure-1", "tiny", ["training.epoch=3"], "Did you mean 'epochs'"),
        ("closer-look/figure-4", "tiny", ["classes=[truck]", "seeds=1", "images=10"], "There is no class 'truck'"),
    ],
)
def test_mistakes_are_named(name, scale, overrides, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_study(name, scale, overrides, tmp_path, show_progress=False)


def test_the_bar_of_a_study_never_runs_backwards_within_a_stage_and_says_the_stage():
    display = Display("figure", shown=False)
    seen = []
    for done, total in ((0, 4), (1, 4), (4, 4), (4, 6), (5, 6), (6, 6)):
        display.count(done, total, 0)
        (task,) = display._progress.tasks
        seen.append((task.description, task.completed / task.total, task.fields["count"]))
    assert seen[2] == ("figure", 1.0, "4/4")
    assert seen[3:] == [
        ("figure, stage 2", 0.0, "4/6"),
        ("figure, stage 2", 0.5, "5/6"),
        ("figure, stage 2", 1.0, "6/6"),
    ]
