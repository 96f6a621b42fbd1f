"""Who has the largest value, and whether anybody is shown to differ from that."""

from isthmus.checks.check import mode_with
from isthmus.core.types import CheckResult, Metrics, Status
from isthmus.metrics import proportion
from isthmus.report.sections import calibration, memorisation
from isthmus.report.sections.common import extreme


def test_ties_are_named_together():
    found = {name: proportion(k, 100) for name, k in {"a": 90, "b": 90, "c": 85, "d": 20}.items()}
    most, least = extreme(found), extreme(found, largest=False)
    assert (most.names, most.others, most.alike) == (["a", "b"], ["c", "d"], ["c"])
    assert most.caveat == "; not shown to differ from c, whose intervals overlap"
    assert (least.names, least.alike, least.caveat) == (["d"], [], "")
    assert extreme(dict.fromkeys("abcde", found["a"])).others == []


def test_a_caption_names_no_winner_among_ties():
    def result(right: int) -> CheckResult:
        gap = proportion(right, 100)
        return CheckResult(
            check="memorisation",
            status=Status.PASS,
            reason="",
            metrics=Metrics(gap.named(name, mode="mean") for name in ("generalisation_gap", "ece")),
            details={"modes": ["mean"], "bins": {"mean": {}}},
        )

    for table, what in ((memorisation._gaps, "gap"), (calibration._table, "expected calibration error")):
        alike = table({name: result(3) for name in ("determ", "vib", "ceb")}).reading
        assert "determ" not in alike
        assert what in alike
        close = table({"determ": result(3), "vib": result(2)}).reading
        assert "; not shown to differ from" in close


def test_a_warning_is_of_the_mode_that_has_the_signs():
    assert mode_with({"mean": [], "stochastic": ["a"]}) == "stochastic"
    assert mode_with({"mean": ["a"], "stochastic": ["a"]}) == mode_with({"mean": [], "stochastic": []}) == "mean"
