"""What a terminal shows of audits: the comparison, and what did not pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from isthmus.core.format import in_words
from isthmus.core.types import CheckResult, Metric, Metrics, Status
from isthmus.metrics import proportion
from isthmus.report import page, terminal
from isthmus.report.loading import AuditedModel, load_all
from tests.report.test_comparison import diagnosed, first

WORDS = ("holds", "overstated", "broken")
NAMES = ("determ", "vib-rho0", "vib-rho4", "ceb-rho0", "ceb-rho4")


def shown(table: object, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def named(runs: list[Path]) -> list[AuditedModel]:
    return [replace(model, name=name) for model, name in zip(load_all(runs), NAMES, strict=True)]


def test_five_classifiers_fit_eighty_columns(runs: list[Path]) -> None:
    text = shown(terminal.comparison(named(runs)))
    assert {len(line) for line in text.splitlines()} == {80}
    for name in NAMES:
        assert f" {name} " in text.splitlines()[1], "names are whole, on one line"
    assert "97.5%" in text
    assert "26.9–36.6" in text or "27.0–36.6" in text
    assert "n\u00a0=\u00a0360; 95% intervals below each value" in text


def test_the_block_of_five_classifiers_has_fewer_than_25_lines_at_80_columns(runs: list[Path]) -> None:
    rows = {name: first(50 + 14 * k) for k, name in enumerate(NAMES)}
    verdicts = [diagnosed(model, model.name, rows[model.name], rows["ceb-rho4"]).results for model in named(runs)]
    models = [
        replace(model, results={**model.results, **verdict})
        for model, verdict in zip(named(runs), verdicts, strict=True)
    ]
    lost = CheckResult(check="", status=Status.ERROR, reason="RuntimeError: out of " + "memory " * 100)
    for check in ("a", "b", "c", "d", "e", "f"):
        models[0] = replace(models[0], results={**models[0].results, check: lost.model_copy(update={"check": check})})
    lines = shown(terminal.block(models)).splitlines()
    assert len(lines) <= 24, "one more line has the page"
    assert max(map(len, lines)) <= 80
    assert lines[0] == "verdict: robust accuracy at ℓ∞ 0.1 holds for all five on digits"
    assert lines[2].split() == ["reported", "corrected", "(95%", "interval)", "clean", "ECE"]
    assert lines[3].replace("\u00a0", " ").split("  ")[-1] == "n = 360"
    assert lines[4].split() == ["determ", "88.3%", "41.7%", "(33.2–50.6)", "97.5%", "1.1%"]
    assert "more warnings: see --all or the page" in lines[-1]


def test_warnings_in_the_block_are_whole_if_there_is_room(runs: list[Path]) -> None:
    model = named(runs)[0]
    reasons = {"robustness": " ".join(f"weak{k}" for k in range(60)), "shift": "See there."}
    results = {check: CheckResult(check=check, status=Status.FAIL, reason=reason) for check, reason in reasons.items()}
    lines = shown(terminal.block([replace(model, results=results)])).splitlines()
    assert max(map(len, lines)) <= 80
    first, last = (lines.index(next(line for line in lines if line.startswith(f"fail: {check}"))) for check in reasons)
    assert all(line.startswith("  ") for line in lines[first + 1 : last])
    assert " ".join(" ".join(lines[first:last]).split()) == f"fail: robustness: {reasons['robustness']}"
    assert lines[last:] == ["fail: shift: See there."]


def test_the_longest_warnings_are_shortened_to_what_fits(runs: list[Path]) -> None:
    long, short = (CheckResult(check="", status=Status.WARN, reason="word " * n) for n in (900, 20))
    results = {"shift": long, "accuracy": short, "corruptions": long}
    models = [replace(model, results=results) for model in named(runs)]
    lines = shown(terminal.block(models)).splitlines()
    assert len(lines) == 24
    assert sum(line.endswith("… (--all)") for line in lines) == 2
    assert "".join(lines).count("word") > 20


def test_a_reason_that_classifiers_do_not_share_names_its_own(runs: list[Path]) -> None:
    first, second, *_ = named(runs)
    warned = [
        replace(model, results={"shift": CheckResult(check="shift", status=Status.WARN, reason=reason)})
        for model, reason in zip((first, second), ("This.", "That."), strict=True)
    ]
    assert shown(terminal.block(warned)).splitlines()[-1] == "warning: shift of determ and vib-rho0; for determ: This."


def test_the_block_of_an_audit_without_a_verdict_shows_what_there_is(runs: list[Path]) -> None:
    model = named(runs)[0]
    lines = shown(terminal.block([model])).splitlines()
    assert lines[0] == "verdict: none at ℓ∞ 0.1 on digits; the check diagnosis gives one"
    assert lines[2].split() == ["robust", "accuracy", "(95%", "interval)", "clean", "ECE"]
    assert lines[4].split()[:2] == ["determ", "31.8%"]
    other = replace(model, results={"narrow": checked("narrow", Metrics([proportion(50, 120).named("narrow")]))})
    assert shown(terminal.block([other])).splitlines()[2:] == ["also measured (--all): narrow"]


def test_an_overstated_robust_accuracy_is_named(runs: list[Path]) -> None:
    models = [doubted(model, word, proportion(71, 100)) for model, word in zip(named(runs), WORDS, strict=False)]
    assert shown(terminal.block(models, 120), 120).splitlines()[0] == (
        "verdict: robust accuracy at ℓ∞ 0.1 holds for determ, is overstated for vib-rho0 and is broken for vib-rho4 "
        "on digits"
    )


def test_everything_but_a_pass_is_said_with_its_reason(runs: list[Path]) -> None:
    models = named(runs)
    lost = CheckResult(check="calibration", status=Status.ERROR, reason="RuntimeError: [0] out of " + "memory " * 300)
    collapsed = replace(models[1], run={**models[1].run, "result": {"collapsed": True}})
    broken = replace(models[4], results={**models[4].results, "calibration": lost})
    text = shown(terminal.remarks([models[0], collapsed, broken]))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:2] == ["collapsed", "vib-rho0"]
    words = " ".join(text.split())
    assert "skipped information of determ A deterministic classifier has no e(z|x) to measure." in words
    assert "fail robustness of determ PGD leaves 31.8% right at ε = 0.1." in words
    assert "RuntimeError: [0] out of" in words
    assert words.endswith("to measure.")
    assert "…" in words
    assert len(words) < 1600
    assert "pass" not in words


def test_nothing_to_say_is_not_said(runs: list[Path]) -> None:
    model = named(runs)[0]
    passed = {"accuracy": model.results["accuracy"]}
    assert terminal.remarks([replace(model, results=passed)]).row_count == 0


def test_a_name_is_no_markup(runs: list[Path]) -> None:
    model = replace(load_all(runs)[0], name="[red]a[/red]")
    assert "[red]a[/red]" in shown(terminal.comparison([model]), 120)
    assert "[red]a[/red]" in shown(terminal.remarks([model]), 120)


def checked(check: str, metrics: Metrics, **details: object) -> CheckResult:
    return CheckResult(check=check, status=Status.PASS, reason="so", metrics=metrics, details=details)


def doubted(model: AuditedModel, word: str, reported: Metric, modes: int = 1) -> AuditedModel:
    """An audit with a verdict on 100 of its images."""
    left = proportion(69, 100)
    verdict = {"status": word, "reported_metric": reported.model_dump(), "corrected_metric": left.model_dump()}
    verdict |= {"reported": reported.value, "corrected": left.value, "reason": "so"}
    found = {"verdict": verdict, "tests": [], "follow_ups": {}, "passes": {"forward": 1, "backward": 1, "bound": 9}}
    details = {"threat": "linf:0.1", "norm": "linf", "eps": 0.1, "verdict": verdict, "mode": "mean"}
    details["modes"] = dict.fromkeys(("mean", "stochastic")[:modes], found)
    at = {"mode": "mean", "norm": "linf", "eps": 0.1}
    metrics = Metrics([reported.named("reported_accuracy", **at), left.named("corrected_accuracy", **at)])
    return replace(model, results={**model.results, "diagnosis": checked("diagnosis", metrics, **details)})


def test_numbers_of_different_n_each_carry_their_own(runs: list[Path]) -> None:
    first, second, *_ = named(runs)
    text = shown(terminal.comparison([doubted(first, "holds", proportion(71, 100)), second]))
    titles = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert {"n\u00a0=\u00a0100", "n\u00a0=\u00a0360"} <= set(titles), "beside the title, where all of a row have it"
    assert text.splitlines()[-1].strip() == "95% intervals below each value"
    mixed = {
        "accuracy": checked(
            "accuracy", Metrics([proportion(50, 120).named("accuracy")]), **first.results["accuracy"].details
        )
    }
    text = shown(terminal.comparison([first, replace(second, results={**second.results, **mixed})]))
    assert " n\u00a0=\u00a0120 │" in text, "beside each number, where they differ"


def test_a_claim_has_no_n_and_no_interval(runs: list[Path]) -> None:
    claim = Metric(value=0.65, unit="fraction", n=0, note="claimed")
    model = doubted(named(runs)[0], "holds", claim)
    text = shown(terminal.comparison([model]))
    assert "n\u00a0=\u00a00" not in text
    assert "claimed" in text
    assert in_words(claim) == "65.0% (claimed)"
    assert "n\u00a0=\u00a00" not in page.render([model])


def test_every_verdict_is_said_in_a_line_with_the_number_to_cite(runs: list[Path]) -> None:
    first, second, *_ = named(runs)
    (line,) = terminal.verdicts([doubted(first, "holds", proportion(71, 100))])
    assert line == (
        "verdict: holds; robust accuracy at linf:0.1: 69.0% (95% interval 59.4–77.2, n = 100); "
        "reported: 71.0% (95% interval 61.5–79.0, n = 100)"
    )
    lines = list(terminal.verdicts([first, doubted(second, "broken", proportion(71, 100), modes=2)]))
    assert len(lines) == 1
    assert lines[0].startswith("verdict on vib-rho0: broken; robust accuracy at linf:0.1, mean mode: 69.0%")
