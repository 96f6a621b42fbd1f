"""Figure 5 of the rate-distortion paper: what the claims say of made-up records, and the whole way on digits."""

import pytest

from isthmus.studies import catalogue
from isthmus.studies.evidence import Verdict
from isthmus.studies.running import run_study
from isthmus.studies.study import StudyRecord

NAME = "rate-distortion/figure-5"
SNR = [60.0, 30.0, 10.0, 1.0]


def record(kept, last=(0.0, 0.0, 0.1), returns=0.5, seeds=3):
    """Cells of B and C that keep these shares under every noise."""
    cells = {}
    for model, value in kept.items():
        for seed in range(seeds):
            own = value + 0.002 * seed
            noises = {}
            for noise, left in zip(("l2", "linf", "white"), last, strict=True):
                back = returns if noise != "white" else 0.0
                noises[noise] = {
                    "information_bits": [2.5, 2.4, 1.0, 0.2, 0.2 + back],
                    "accuracy": [0.85, 0.8, 0.4, 0.1, left],
                    "kept": [own, own - 0.005, own + 0.005],
                }
            cells[f"{model} {seed}"] = {
                "model": model, "seed": seed, "n": 10_000, "snr": SNR, "label_entropy_bits": 3.32, "noises": noises,
                "test_accuracy": 0.85,
            }  # fmt: skip
    config = catalogue.find(NAME).Config().plain()
    return StudyRecord(study=NAME, scale="small", config=config, cells=cells, total=len(cells))


def verdicts(*arguments, **options):
    return [each.verdict for each in catalogue.find(NAME).findings(record(*arguments, **options))]


def test_as_shown_everything_is_seen():
    assert verdicts({"B": 0.6, "C": 0.4}) == [Verdict.SEEN] * 6


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"kept": {"B": 0.4, "C": 0.6}}, [0]),
        ({"last": (0.3, 0.0, 0.1)}, [1]),
        ({"last": (0.0, 0.3, 0.1)}, [2]),
        ({"last": (0.0, 0.0, 0.5)}, [3]),
        ({"returns": 0.0}, [4, 5]),
    ],
)
def test_other_numbers_refute(changed, at):
    found = verdicts(**({"kept": {"B": 0.6, "C": 0.4}} | changed))
    assert [place for place, verdict in enumerate(found) if verdict == Verdict.NOT_SEEN] == at


def test_one_seed_and_missing_models_decide_nothing():
    assert set(verdicts({"B": 0.6, "C": 0.4}, seeds=1)) == {Verdict.UNDECIDED}
    assert verdicts({"B": 0.6})[0] == Verdict.UNDECIDED
    assert verdicts({}) == [Verdict.UNDECIDED]


def test_the_page_draws_a_panel_a_model_and_quantity():
    section = catalogue.find(NAME).section(record({"B": 0.6, "C": 0.4}))
    assert len(section.blocks) == 5
    assert all(len(block.series) == 3 for block in section.blocks[:-1])
    assert catalogue.find(NAME).section(record({})).blocks == ()


def test_the_whole_way_on_digits(tmp_path):
    settings = {"seeds": 1, "models": ["B"], "training.epochs": 15, "noises": ["l2", "white"]}
    measured, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    (cell,) = measured.cells.values()
    for found in cell["noises"].values():
        assert len(found["accuracy"]) == 1 + len(cell["snr"])
        assert all(-1e-9 <= value <= cell["label_entropy_bits"] + 1e-9 for value in found["information_bits"])
    assert cell["noises"]["l2"]["accuracy"][-1] <= cell["noises"]["l2"]["accuracy"][0]
    assert "fault tolerance" in html.read_text("utf-8")
