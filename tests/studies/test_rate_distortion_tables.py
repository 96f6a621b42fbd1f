"""Tables 1 and 2 of the rate-distortion paper: recipes, claims on made-up records, and runs on digits."""

from io import BytesIO

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.studies import catalogue
from isthmus.studies.paper_values import paper_values
from isthmus.studies.running import run_study
from isthmus.studies.verdicts import Verdict
from tests.studies.records import blocks, fraction, measured, record, row, verdicts

NAMES = {"original": "rate-distortion/table-1", "random": "rate-distortion/table-2"}
N = 20_000


def printed(table, metric):
    found = paper_values("rate_distortion", table)
    return {(e.coords["model"], e.coords["batch_size"]): e.value for e in found if e.metric == metric}


def printed_1():
    test, gap = (printed("table-1", metric) for metric in ("test accuracy", "gap"))
    return {key: (test[key] + gap[key], test[key]) for key in test}


def printed_2():
    train, gap = (printed("table-2", metric) for metric in ("train accuracy", "gap"))
    return {key: (train[key], train[key] - gap[key]) for key in train} | {("B", 32): (0.102, 0.1)}


def made(labels, numbers, seeds=5, **config):
    """Experiments from (model, batch) -> (training accuracy, test accuracy), all seeds nearly alike."""
    experiments = []
    for (model, batch), (train, test) in numbers.items():
        for seed in range(seeds):
            jitter = (seed - (seeds - 1) / 2) * 1e-3
            rows = [
                fraction("train_accuracy", round(N * min(train + jitter / 2, 1)), N),
                fraction("test_accuracy", round(N * (test + jitter)), N),
                row("constant_accuracy", 0.102, "fraction", N),
                row("chance", 0.196, "fraction", N),
            ]
            experiments.append(measured(rows, {"model": model, "batch_size": batch, "labels": labels, "seed": seed}))
    models = [model for model in ("A", "B", "B+", "C") if model in {model for model, _ in numbers}]
    return record(NAMES[labels], experiments, models=models or ("A",), **config)


def judged(labels, numbers, **options):
    return verdicts(made(labels, numbers, **options))


def test_the_printed_numbers_support_the_claims():
    assert judged("original", printed_1())[:2] == [Verdict.SUPPORTED] * 2
    assert judged("random", printed_2()) == [Verdict.SUPPORTED] * 5


def test_what_the_first_table_does_not_hold_at_every_batch_size():
    """With batches of 32 the printed gap of C is only 3.6 points above B's: our margin of five is not met.

    The printed lead of 0.6 points of B over A is within the chance of 20,000 images.
    """
    found = judged("original", printed_1())
    assert found[2:4] == [Verdict.CONTRADICTED, Verdict.UNDECIDED]
    assert found[4:] == [Verdict.SUPPORTED] * 2


def test_weight_decay_that_does_nothing_contradicts():
    numbers = printed_1()
    numbers |= {("B", batch): numbers["A", batch] for batch in (128, 64, 32)}
    assert judged("original", numbers)[1] == Verdict.CONTRADICTED
    numbers = printed_2()
    numbers |= {("B", batch): numbers["A", batch] for batch in (128, 32)}
    assert judged("random", numbers)[1] == Verdict.CONTRADICTED


def test_one_seed_and_missing_models_decide_nothing():
    assert set(judged("random", printed_2(), seeds=1)) == {Verdict.UNDECIDED}
    only = {key: value for key, value in printed_2().items() if key[0] == "A"}
    assert judged("random", only)[1:4] == [Verdict.UNDECIDED] * 3


def test_one_batch_size_has_no_large_batch_gap():
    numbers = {key: value for key, value in printed_2().items() if key[1] == 32}
    assert judged("random", numbers, batch_sizes=(32,))[3:] == [Verdict.UNDECIDED] * 2


def test_printed_numbers_are_shown_on_svhn_alone():
    (table,) = blocks(made("random", printed_2()))
    assert sum("Table 2" in str(line[2]) for line in table.rows) == 5
    assert [line for line in table.rows if line[:2] == ("batch size 128", "A, no regulariser")][1][4:] == (
        "85.0 ± 3.0%", "", "76.0 ± 3.0%", "", "",
    )  # fmt: skip
    (table,) = blocks(made("random", printed_2(), data="cifar10"))
    assert "numbers" not in table.columns
    assert blocks(made("random", {})) == ()


def test_two_runs_that_agree_have_an_interval_for_the_images():
    (table,) = blocks(made("original", {("C", 32): (0.392, 0.392)}, seeds=2, data="cifar10"))
    test = table.rows[0][4]
    assert test.interval.low < test.value < test.interval.high


def test_recipes_are_the_papers():
    config = catalogue.find(NAMES["original"]).config(weight_decay=1e-2)
    recipe = load_recipe(config.recipe("B", 64, "original", 3))
    assert recipe.training.optimizer.weight_decay == 1e-2
    assert (recipe.training.optimizer.name, recipe.training.optimizer.momentum, recipe.training.optimizer.lr) == (
        "sgd", 0.0, 1e-2,
    )  # fmt: skip
    assert recipe.model.normalize.components == 400
    assert load_recipe(config.recipe("A", 64, "random", 3)).training.optimizer.weight_decay == 0
    assert config.recipe("C", 64, "random", 3)["model"]["backbone"]["batch_norm"]
    assert len({str(config.recipe(m, b, s, 0)) for m in "ABC" for b in (128, 64) for s in NAMES}) == 12


def test_a_run_on_digits(tmp_path):
    settings = {"seeds": 1, "models": ["A", "C"], "weight_decay": 0.01, "training.epochs": 20}
    found, html = run_study(NAMES["random"], "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    for name, n in (("train_accuracy", 200), ("test_accuracy", 359)):
        assert [each.n for each in found.rows().select(name, {})] == [n] * 2
    (batch_norm,) = found.rows().select("train_accuracy", {"model": "C"})
    assert batch_norm.value > 0.3  # chance is 0.1
    assert "random labels" in html.read_text("utf-8")


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """A mirror of made-up house numbers: 60 to train on, 20 to test on and 40 extra ones."""
    folder = tmp_path / "mirror" / "ufldl-stanford/svhn/cropped_digits"
    folder.mkdir(parents=True)
    for split, n in {"train": 60, "test": 20, "extra": 40}.items():
        cells = []
        for pixels in np.random.default_rng(n).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8):
            Image.fromarray(pixels).save(buffer := BytesIO(), "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        table = {"image": pyarrow.array(cells, struct), "label": [i % 10 for i in range(n)]}
        pyarrow.parquet.write_table(pyarrow.table(table), folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path / "mirror"))
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))


SVHN = {
    "seeds": 1, "weight_decay": 0.01, "training.epochs": 1, "normalize.components": 10, "train_limit": None,
}  # fmt: skip


def test_more_images_for_the_same_model(svhn, tmp_path):
    """B+ is B with the extra images, and its accuracy is compared with B's."""
    settings = {**SVHN, "data": "svhn", "models": ["B", "B+"], "more_data": {"extra": True}}
    found, html = run_study(NAMES["original"], "tiny", settings, tmp_path, show_progress=False)
    assert not found.failures
    trained = found.rows().select("train_accuracy", {})
    assert {each.coords["model"]: (each.n, each.coords["weight_decay"]) for each in trained} == {
        "B": (60, 0.01), "B+": (100, 0.01),
    }  # fmt: skip
    assert any("B+" in each.claim for each in found.claims)
    assert "B+" in html.read_text("utf-8")


def test_data_with_options_of_its_own(svhn, tmp_path):
    settings = {**SVHN, "data": {"name": "svhn", "extra": True}, "models": ["A"], "batch_sizes": [32]}
    found, _ = run_study(NAMES["original"], "tiny", settings, tmp_path, show_progress=False)
    (trained,) = found.rows().select("train_accuracy", {})
    assert trained.n == 100
    (table,) = blocks(found)
    assert "numbers" in table.columns  # it is SVHN, as in the paper


@pytest.mark.parametrize(
    ("data", "message"),
    [({"extra": True}, "name of a data set"), ({"name": "svhn", "train_limit": 5}, "sets train_limit of the data")],
)
def test_data_that_the_study_cannot_take(tmp_path, data, message):
    with pytest.raises(ConfigError, match=message):
        run_study(NAMES["original"], "tiny", {"data": data}, tmp_path, show_progress=False)


def test_the_printed_lead_of_b_plus_is_a_claim_only_if_it_was_trained():
    numbers = printed_1()
    plain = judged("original", numbers)
    more = numbers | {
        ("B+", batch): (train + 0.017, test + 0.02) for (m, batch), (train, test) in numbers.items() if m == "B"
    }
    found = catalogue.find(NAMES["original"]).judge(made("original", more))
    assert len(found) == len(plain) + 1
    assert [each.verdict for each in found if "B+" in each.claim] == [Verdict.SUPPORTED]


def test_every_study_of_the_paper_takes_data_with_options():
    for name in catalogue.names():
        if name.startswith("rate-distortion/"):
            config = catalogue.find(name).config(data={"name": "svhn", "extra": True})
            assert config.plain()["data"] == {"name": "svhn", "extra": True}
