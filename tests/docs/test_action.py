"""The GitHub action: valid, its options exist, and its shell gives the exit code of the command."""

import json
import os
import re
import subprocess

import pytest
import yaml

from isthmus.cli import app
from isthmus.core import registry
from isthmus.report.exports.formats import FORMATS
from tests.docs.doc_pages import ROOT
from tests.docs.test_snippets import VERBS

ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
WORKFLOW = yaml.safe_load((ROOT / "examples/ci/audit.yml").read_text("utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "name" in step}
USED = next(step for step in WORKFLOW["jobs"]["audit"]["steps"] if step["uses"].startswith("OWNER/isthmus@"))
RECORDER = """#!/usr/bin/env python3
import json, os, pathlib, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
path = pathlib.Path(sys.argv[sys.argv.index("--markdown") + 1])
path.parent.mkdir(exist_ok=True)
path.write_text("a summary")
sys.exit(int(os.environ["CODE"]))
"""


def run(step, tmp_path, code=0, **given):
    """Run a step's shell as GitHub does, with a program in place of isthmus that records its arguments."""
    program = tmp_path / "bin" / "isthmus"
    program.parent.mkdir(exist_ok=True)
    program.write_text(RECORDER)
    program.chmod(0o755)
    names = ("CALLS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
    env = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "CODE": str(code),
        **{name: name for name in names},
        **given,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[step]["run"]]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    calls = [json.loads(line) for line in (tmp_path / "CALLS").read_text().splitlines()]
    return done, calls[-1]


def test_every_input_is_used_and_declared():
    text = (ROOT / "action.yml").read_text("utf-8")
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(ACTION["inputs"])
    assert all("description" in each for each in ACTION["inputs"].values())
    assert set(USED["with"]) <= set(ACTION["inputs"])
    required = {name for name, each in ACTION["inputs"].items() if each.get("required")}
    assert required <= set(USED["with"])


def test_no_input_is_pasted_into_a_shell():
    for step in STEPS.values():
        assert "${{" not in step["run"], "an input could hold commands"
        assert step["shell"] == "bash"


@pytest.mark.parametrize("code", [0, 3, 6])
def test_the_audit_step_has_options_that_exist_and_the_commands_exit_code(tmp_path, code):
    given = {"ARGUMENTS": USED["with"]["arguments"], "FAIL_UNDER": USED["with"]["fail-under"], "OUT": "out dir"}
    done, (verb, *arguments) = run("Audit", tmp_path, code, **given)
    assert done.returncode == code, done.stderr
    found = VERBS[verb].make_context(verb, arguments).params
    assert str(found["out"]) == "out dir"
    assert found["fail_under"] == "robust=40%,clean=90%"
    assert found["n"] == 1000
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == f"exit-code={code}\n"
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text() == "a summary"


def test_hostile_arguments_stay_arguments(tmp_path):
    done, arguments = run("Audit", tmp_path, ARGUMENTS="--data $(touch owned);touch owned", FAIL_UNDER="", OUT="o")
    assert done.returncode == 0
    assert "$(touch" in arguments
    assert "--fail-under" not in arguments
    assert not (tmp_path / "owned").exists()


def test_the_compare_step_has_options_that_exist(tmp_path):
    done, (verb, *arguments) = run("Compare", tmp_path, 7, BASELINE="before", OUT="after")
    assert done.returncode == 7
    found = VERBS[verb].make_context(verb, arguments).params
    assert (str(found["before"]), str(found["after"])) == ("before", "after")
    assert "compare" in app.COMMANDS


def test_the_workflow_uploads_what_the_action_writes():
    texts = [json.dumps(step) for step in WORKFLOW["jobs"]["audit"]["steps"]]
    folder = ACTION["inputs"]["out"]["default"]
    assert sum(folder in text for text in texts) == 3
    assert WORKFLOW[True] == "pull_request"  # "on" is true in YAML 1.1


def test_every_format_is_on_the_page_and_every_rule_has_its_anchor():
    page = (ROOT / "docs/in-ci.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `([\w.-]+)` \|", page, re.MULTILINE)
    assert dict(rows) == {name: each.file for name, each in FORMATS.items()}
    titles = re.findall(r"^## (.+)$", (ROOT / "docs/checks.md").read_text("utf-8"), re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    assert {name.replace("_", "-") for name in registry.names("checks")} <= anchors, "SARIF links to them"
    assert "## Thresholds" in page
