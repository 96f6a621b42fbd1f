"""Sentences that compare classifiers, and tables over modes."""

from isthmus.checks.check import mode_with
from isthmus.core.types import CheckResult, Metric, Metrics, Status
from isthmus.metrics import difference, proportion
from isthmus.report.sections import calibration, common, memorisation


def test_ties_are_named_together():
    found = {name: proportion(k, 100) for name, k in {"a": 90, "b": 90, "c": 85, "d": 20}.items()}
    most, least = common.extreme(found), common.extreme(found, largest=False)
    assert (most.names, most.others, most.alike) == (["a", "b"], ["c", "d"], ["c"])
    assert most.group == ["a", "b", "c"]
    assert (least.names, least.alike) == (["d"], [])
    assert common.extreme(dict.fromkeys("abcde", found["a"])).others == []
    both = common.extremes(found, "ECE")
    assert both == (
        "a, b and c have the largest ECE, 85.0% to 90.0% (overlapping intervals), and d has the smallest, 20.0%"
    )
    assert common.superlative(found, "ECE", "smallest") == "d has the smallest ECE, 20.0%"
    assert common.extremes(dict.fromkeys("ab", found["d"]), "ECE") == "The ECE is 20.0% for each"


def test_extremes_name_every_classifier():
    found = {name: proportion(k, 100) for name, k in {"a": 90, "b": 84, "c": 79, "d": 72}.items()}
    assert common.extremes(found, "ECE") == (
        "a, b and c have the largest ECE, 79.0% to 90.0% (overlapping intervals), and d has less, 72.0%"
    )
    apart = {name: proportion(k, 1000) for name, k in {"a": 900, "b": 500, "c": 100}.items()}
    assert common.extremes(apart, "ECE").endswith("and c has the smallest, 10.0%; b lies between")


def test_a_ranking_names_every_classifier_or_none():
    values = {"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2}
    assert common.ranking(values) == "from 10.0% to 40.0%"
    del values["d"]
    assert common.ranking(values, largest=False) == "10.0% for a, 30.0% for c and 40.0% for b"
    assert common.ranking({"a": 0.1, "b": 0.1}) == "10.0% for each"
    assert common.ranking({"a": 0.1}) == "10.0%"


def test_confidence_is_compared_with_accuracy_beyond_the_interval():
    right = [1] * 50 + [0] * 50
    over, under = difference([0] * 100, right), difference([1] * 100, right)
    text = common.over_accuracy({"a": over, "b": under, "c": difference(right, right)}, "confidence")
    assert text == (
        "On average, confidence exceeds accuracy for a (by 50.0 points); it falls short of accuracy for b (by 50.0 "
        "points); it is not shown to differ from accuracy for c."
    )
    unknown = Metric(value=None, unit="fraction", n=3)
    assert common.over_accuracy({"a": unknown}, "confidence") == "No image has finite logits."


def test_a_table_has_a_row_for_each_mode_and_no_empty_column():
    metrics = [proportion(k, 9).named("accuracy", mode=mode) for k, mode in ((5, "mean"), (6, "stochastic"))]
    result = CheckResult(check="mine", status=Status.MEASURED, reason="", metrics=Metrics(metrics))
    cells = {"accuracy": common.measured("accuracy"), "ECE": common.measured("ece"), "mode": lambda _, mode: mode}
    table = common.table("Title", "", {"a": result}, cells)
    assert table.columns == ("classifier", "accuracy", "mode")
    assert table.rows == (("a", metrics[0], "mean"), ("a (stochastic)", metrics[1], "stochastic"))


def test_a_caption_names_no_winner_among_ties():
    def result(right: int) -> CheckResult:
        gap = proportion(right, 100)
        return CheckResult(
            check="memorisation",
            status=Status.PASS,
            reason="",
            metrics=Metrics(gap.named(name, mode="mean") for name in ("generalisation_gap", "ece")),
        )

    for table, what in ((memorisation._gaps, "gap"), (calibration._measures, "expected calibration error")):
        alike = table({name: result(3) for name in ("determ", "vib", "ceb")}).reading
        assert "determ" not in alike
        assert what in alike
        close = table({"determ": result(3), "vib": result(2)}).reading
        assert "(overlapping intervals)" in close
        assert "determ" not in close


def test_a_warning_is_of_the_mode_that_has_the_signs():
    assert mode_with({"mean": [], "stochastic": ["a"]}) == "stochastic"
    assert mode_with({"mean": ["a"], "stochastic": ["a"]}) == mode_with({"mean": [], "stochastic": []}) == "mean"
