"""What the page on attacks says about them is true of the code: suites, options, columns, thresholds."""

import re
from dataclasses import fields

import pytest

from isthmus.attacks import L2, Linf, Race, race, result_warnings, threats
from isthmus.attacks.attack import IterativeAttack
from isthmus.attacks.engine import averages, early_stopping, probes, rounding, verifier
from isthmus.attacks.engine.evaluation_file import SAVE_EVERY
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.suites import SUITES
from isthmus.core import registry
from isthmus.core.errors import ConfigError
from tests.docs.doc_pages import DOCS

PAGE = (DOCS / "attacks.md").read_text("utf-8")
FLAT = " ".join(PAGE.split())


def rows(heading):
    """Cells of the table below a heading."""
    section = PAGE.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_every_attack_and_suite_is_listed():
    names = [re.match(r"`(\w+)", row[0])[1] for row in rows("## All attacks")]
    assert sorted(names) == registry.names("attacks")
    assert [row[0].strip("`") for row in rows("## Suites")] == list(SUITES)


@pytest.mark.parametrize("row", rows("## All attacks"), ids=lambda row: row[0].strip("`"))
def test_options_and_their_defaults(row):
    name, _, argument = row[0].strip("`").partition(":")
    config = registry.load("attacks", name)
    assert bool(argument) == (config.argument is not None)
    if argument and name != "transfer":
        assert argument.lower() == config.argument
    for option, value in re.findall(r"`(\w+)` \(((?:[^()]|\([^()]*\))+)\)", row[4]):
        default = config.model_fields[option].default
        assert said(default) in {value, value.split(",")[0], f"({value})"} or default is None, option
    assert set(re.findall(r"`(\w+)`", row[4])) <= set(config.model_fields)


def said(default):
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize("row", rows("## All attacks"), ids=lambda row: row[0].strip("`"))
def test_norms_and_gradients(row):
    kind = registry.load("attacks", re.match(r"`(\w+)", row[0])[1])
    if not issubclass(kind, IterativeAttack):
        return
    assert (row[3] == "yes") == kind.gradient
    assert kind().for_threat(L2(1.0), 10).runs >= 1
    if row[2] == "ℓ2":
        with pytest.raises(ConfigError, match="linf"):
            kind().for_threat(Linf(0.1), 10)


def test_every_column_of_the_state_is_described():
    described = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in rows("## What comes back"))))
    assert {field.name for field in fields(EvaluationState)} <= described


def test_thresholds_are_those_of_the_code():
    assert averages.SCREEN == 4
    assert f"the probabilities of {averages.SCREEN} fresh draws" in FLAT
    assert f"{averages.BLOCK} at first, then as many as were taken already, and at most {averages.MOST_DRAWS}" in FLAT
    assert f"betting {min(averages.BETS):g} to {max(averages.BETS):g}" in FLAT
    assert len(averages.BETS) == 5
    assert (
        f"no class leads by more than {averages.UNSURE:g} in any of the first {averages.FIRST + averages.BLOCK} draws"
        in FLAT
    )
    assert f"a capital of k(k + 1) / {averages.DOUBT:g}" in FLAT
    assert (rounding.ROUNDING, rounding.LAST_BITS) == (2.0**-16, 2.0**-21)
    assert "2<sup>−16</sup> of the range of logits and 2<sup>−21</sup> of the leading one" in FLAT
    assert verifier.COPIES == (1, 3, 8)
    assert "batches of 1, 3 and 8 copies" in FLAT
    assert threats.ULP == 2.0**-23
    assert "2<sup>−23</sup> in every pixel" in FLAT
    assert f"more than {result_warnings.BLIND:.0%} of the gradients" in FLAT
    assert f"waves of {early_stopping.WAVE}" in FLAT
    assert f"about every {SAVE_EVERY:g} seconds" in FLAT
    most = probes.BATCH_SIZE
    assert f"{most} at most on a CPU and {8 * most:,} elsewhere" in FLAT


def test_the_race_is_told_as_it_is():
    config = Race()
    (far, first, steps), (nearer, second, longer), (near, last, longest) = config.rounds
    for said_so in (
        f"cross-entropy, {config.ce_steps} steps from one random start",
        f"The nearest {far:.0%} of the robust examples",
        f"a run of {steps} steps towards each of their first {first} classes",
        f"the nearest {nearer:.0%} get {longer} steps towards the {second} classes that came closest",
        f"the nearest {near:.0%} get {longest} steps towards each of {last} classes, and {longest} on the",
        f"breaks one of the {race.FARTHEST:.0%} of its examples that have the largest margins",
        f"best + {config.patience:g} · gain · windows left < 0",
        f"Square with {config.queries:,} queries on the nearest {config.near:.0%}",
        f"Square with {config.sample_queries:,} queries on a sample: {config.drawn:.0%} of the robust examples",
        f"(at least {race.LEAST}, at most {race.MOST})",
        f"**square-more**: Square with {config.more_queries:,} queries.",
        f"sample of {race.MOST} with {1 - 0.9**race.MOST:.1%} probability, and in a sample of {race.LEAST} with 65%",
    ):
        assert said_so in FLAT
    assert round(1 - 0.9**race.LEAST, 2) == 0.65
    assert not [stage.label for stage in config.stages() if f"**{stage.label}**" not in FLAT]
