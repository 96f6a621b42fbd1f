"""The command line: every verb with arguments that are hostile, contradict one another, or name what is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.errors import ConfigError
from isthmus.studies import running
from isthmus.training.loop import Trainer
from tests.fuzzing.hostile import SCALARS, Draw
from tests.fuzzing.sound import RECIPE
from tests.fuzzing.trials import FULL, Place, Refused, cases, command, judge, place

WORDS = sorted(
    {text for text in map(str, SCALARS) if "\0" not in text and "\ud800" not in text}
    | {"runs/none", "run", "recipe.yaml", "file", "file/below", ".", "/dev/null", "/proc/self/mem", "loop", "é" * 200}
    | {"n" * 300, "a/" * 2000, "page.html", "out", "--", "-q", "--debug=1", "@file", "~nobody/x", "x\udcff"}
)
words = st.sampled_from(WORDS) | st.text(max_size=10).filter(lambda text: "\0" not in text and text.isprintable())
numbers = st.sampled_from(["-1", "0", "1e9", "nan", "inf", "0x10", "1_0", "٣", "9" * 30, "9" * 5000, "1.5", "", "two"])
threats = st.sampled_from(
    [
        "linf:",
        "linf:nan",
        "linf:inf",
        "linf:1e-999",
        "linf:8/0",
        "linf:-1/255",
        "linf:1/2/3",
        "l2:1e400",
        "l0:1",
        ":",
        "l",
    ]
) | st.sampled_from(["linf:0.1,0.2", "linf:9" + "9" * 400, "l1:0/0", "linf:٣", "linf:0x1p-3", "l2:1_0", "linf:8/255x"])
suites = st.sampled_from(
    [
        "",
        ",",
        "fgsm,",
        "pgd:",
        "pgd:-1",
        "pgd:1e9",
        "pgd:9" + "9" * 30,
        "pgd:nan",
        "square:x",
        "transfer:none",
        "standart",
    ]
) | st.sampled_from(["transfer:", "transfer:.", "transfer:file", "fgsm:1", "os:system", "../pgd", "pgd:1:2", "clean"])
checks = st.sampled_from(
    [
        "",
        ",",
        "acuracy",
        "accuracy,",
        "accuracy,accuracy",
        "transfer",
        "transfer:folder:nowhere",
        "shift:none",
        "members",
    ]
) | st.sampled_from(
    ["accuracy:1", "one_shot", "../accuracy", "context", "__init__", "shift:cifar10_1", "corruptions:x"]
)
data = st.sampled_from(
    [
        "",
        ":",
        "folder",
        "folder:",
        "folder:.",
        "folder:file",
        "folder:loop",
        "folder:~nobody-of-that-name/x",
        "imagenet:.",
    ]
) | st.sampled_from(["imagenet:loop", "digits:x", "hub", "folder:" + "x" * 5000, "images", "folder:a/" * 900, "svhn"])

OPTIONS: dict[str, dict[str, st.SearchStrategy[str]]] = {
    "train": {"--out": words},
    "audit": {
        "--model": words,
        "--weights": words,
        "--data": data | words,
        "--threat": threats | words,
        "--n": numbers,
        "--checks": checks | words,
        "--claimed": numbers | words,
        "--seed": numbers,
        "--out": words,
        "--step": numbers,
        "--executor": words,
        "--address": words,
        "--jobs": numbers,
        "--worker-gpus": numbers,
    },
    "attack": {
        "--model": words,
        "--weights": words,
        "--data": data | words,
        "--threat": threats | words,
        "--n": numbers,
        "--suite": suites | words,
        "--batch-size": numbers,
        "--jobs": numbers,
        "--ci-half-width": numbers | words,
        "--seed": numbers,
        "--out": words,
    },
    "verify": {"--model": words, "--weights": words, "--data": data | words},
    "report": {"--out": words},
    "demo": {"--out": st.just("file/below"), "--quick": words},
    "study": {"--scale": words, "--out": words, "--jobs": numbers, "--executor": words},
    "list": {},
}
"""Options of each verb with what is given for them. What is sound and would take long is not among it."""

NEEDED = {
    "audit": ["run", "--n", "2", "--checks", "accuracy", "--out", "audited"],
    "attack": ["run", "--n", "2", "--suite", "fgsm", "--out", "attacked/w.safetensors", "--force"],
    "verify": ["run/witnesses.safetensors", "run"],
    "report": ["run", "--out", "page.html"],
    "train": ["recipe.yaml", "--out", "trained"],
    "study": ["closer-look/figure-1", "--scale", "tiny", "--out", "studies"],
}
"""A sound use of each verb, in which one thing or several get replaced."""


@st.composite
def lines(draw: Draw) -> list[str]:
    """A command line."""
    verb = draw(st.sampled_from(sorted(OPTIONS)))
    given = list(NEEDED.get(verb, []))
    if given and draw(st.integers(0, 4)) == 0:  # the positional arguments
        given[draw(st.integers(0, 1 if verb in ("verify", "study") else 0))] = draw(words)
    chosen = draw(st.lists(st.sampled_from(sorted(OPTIONS[verb])), max_size=3)) if OPTIONS[verb] else []
    for option in chosen:
        given += [option, draw(OPTIONS[verb][option])]
    if verb in ("train", "study", "list"):
        keys = st.sampled_from(
            ["seed", "training.epochs", "data", "model", "objective.rho", "seeds", "nonsense", "a.b", ""]
        )
        given += draw(st.lists(st.builds("{}={}".format, keys, words | numbers) | words, max_size=2))
    if draw(st.integers(0, 9)) == 0:
        given.insert(draw(st.integers(0, len(given))), draw(words))
    return [verb, *given] if draw(st.integers(0, 19)) else [draw(words)[:200], *given]


def furnish(here: Place, run: Path) -> None:
    """What the arguments name: a run with a small audit, a recipe, a file that is a file, a link to itself."""
    undrawn = shutil.ignore_patterns("page.html", "begun*", "metrics.jsonl", "calibration*", "information*")
    shutil.copytree(run, here.folder / "run", ignore=undrawn)
    here.write("recipe.yaml", yaml.safe_dump(RECIPE).encode())
    here.write("file", b"not what you look for\n")
    (here.folder / "loop").symlink_to("loop")


KEYS = st.sampled_from(["name", "data", "data.path", "training.augment"])


class Began(ConfigError):
    """The input was sound, and the long work began."""


def _begin(*_: object, **__: object) -> None:
    raise Began("the work began")


@pytest.fixture
def no_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and studies stop where they begin."""
    monkeypatch.setattr(Trainer, "fit", _begin)
    monkeypatch.setattr(running._RunningStudy, "measure", _begin)


@pytest.mark.usefixtures("no_long_work")
@given(line=lines())
@cases(16, 500)
def test_arguments_are_taken_or_refused(run: Path, line: list[str]) -> None:
    with place() as here:
        furnish(here, run)
        judge(f"command line: {line[0]}" if line[0] in OPTIONS else "command line: no verb", here, lambda: use(line))


def use(line: list[str]) -> None:
    """Run a command line; where training or a study began, or a result came out at chance, its input was sound."""
    try:
        command(*line)
    except Refused as error:
        if not any(said in str(error) for said in ("the work began", " is at chance. ", "that of a constant answer")):
            raise


@pytest.mark.usefixtures("no_long_work")
@given(overrides=st.lists(st.builds("{}={}".format, KEYS, words), min_size=1, max_size=2))
@cases(8, 100)
def test_recipes_with_overrides_begin_or_are_refused(run: Path, overrides: list[str]) -> None:
    with place() as here:
        furnish(here, run)
        judge("command line: train", here, lambda: use(["train", "recipe.yaml", *overrides]))


def test_a_message_is_one_line_whatever_the_name() -> None:
    """Names of files can hold anything, and a terminal obeys what it is shown."""
    with place() as here:
        for name in ("a\nb", "a\x1b[31mred", "a\x1b]0;title\x07", "a\rb", "a\u202eb", "a\u2028b", "a\x9b31m"):
            (here.folder / name).mkdir()
            for line in (["report", name], ["train", f"{name}/x.yaml"], ["audit", name], ["verify", name, name]):
                with pytest.raises(Refused) as caught:
                    command(*line)
                said = str(caught.value)
                assert said.endswith("\n")
                assert said[:-1].isprintable(), said


def test_a_page_of_an_odd_name_is_announced(run: Path) -> None:
    with place() as here:
        furnish(here, run)
        for name in ("p\udcff.html", "p\nq.html", "[red]p[/red].html", "[/].html"):
            judge("command line: report", here, lambda name=name: command("report", "run", "--out", name))
            assert (here.folder / name).exists()


def test_a_name_in_a_run_is_no_markup(run: Path) -> None:
    """Rich reads square brackets in a text as colours and links, and stops at those that are not closed."""
    names = ["[/]", "\ud800 \x1b[31mred\nb", "[link=http://x]y[/link]", "[red]x", "\u202eabc"]
    for name in names if FULL else names[:2]:
        with place() as here:
            furnish(here, run)
            for file in ("run.json", "audit/audit.json"):
                content = json.loads((here.folder / "run" / file).read_text())
                del content["sha256"]
                content |= {"model": name} if "audit" in file else {"recipe": content["recipe"] | {"name": name}}
                (here.folder / "run" / file).write_text(json.dumps(content))
            said = []
            judge(
                "command line: report", here, lambda said=said: said.append(command("report", "run", "--out", "p.html"))
            )
            assert "\x1b[31m" not in said[0].out
