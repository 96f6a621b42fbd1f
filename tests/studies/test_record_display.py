"""A study's record in a notebook."""

from isthmus.studies.verdicts import ClaimResult, Verdict
from tests.studies.records import measured, record, row

NAME = "closer-look/figure-1"


def test_a_record_says_what_was_measured_and_judged():
    first = measured([row("accuracy", 0.5, "fraction", 10)], {"seed": 0})
    second = measured([row("accuracy", 0.1, "fraction", 10), row("rate", 2.0, "nats", 10)], {"seed": 1}, collapsed=True)
    made = record(NAME, [first, second])
    claims = (ClaimResult(claim="c", verdict=Verdict.SUPPORTED, reason="r"),) * 2
    made = made.model_copy(update={"total": 3, "failures": {"x": "why"}, "claims": claims})
    assert repr(made).splitlines() == [
        f"StudyRecord: {NAME}, scale small",
        "experiments: 2 of 3 measured, 1 failed, 1 collapsed",
        "claims: 2 supported",
    ]
    table = made.to_dataframe()
    assert len(table) == 3
    assert table["value"].tolist() == [0.5, 0.1, 2.0]
    assert table["experiment"].tolist() == ["0", "1", "1"]
    assert table["collapsed"].tolist() == [False, True, True]
    assert table["seed"].tolist() == [0, 1, 1]
