"""The choice of λ in the rate-distortion studies: the rule on made-up runs, its refusals, and a run on digits."""

import pytest

from isthmus.core.errors import ConfigError
from isthmus.studies import catalogue
from isthmus.studies.rate_distortion import weight_decay
from isthmus.studies.running import run_study
from tests.studies.records import blocks, fraction, measured, record, row, verdicts

NAME = "rate-distortion/table-2"
N, CONSTANT = 2000, 224


def config(**settings):
    return catalogue.find(NAME).config(seeds=3, weight_decays=(0.1, 0.01, 0.03), **settings)


def run(right, decay=0.0, batch=32):
    rows = [
        fraction(weight_decay.ACCURACY, right, N),
        row(weight_decay.CONSTANT, CONSTANT / N, "fraction", N),
    ]
    return measured(rows, {"weight_decay": decay, "batch_size": batch, "seed": 3})


def choose(given, *rights):
    """Drive the stages; returns the candidates that were trained and the config that comes out.

    Args:
        rights: for each candidate the number of correct predictions at each batch size.
    """
    stages, tried = weight_decay.chosen(given, None), []
    try:
        experiments = next(stages)
        for each in rights:
            tried.append({e.plain["recipe"]["training"]["optimizer"].get("weight_decay", 0.0) for e in experiments})
            experiments = stages.send([run(right) for right in each])
    except StopIteration as over:
        return [each for (each,) in tried], over.value
    raise AssertionError("it asks for more")


def test_the_smallest_that_stops_the_fitting_at_every_batch_size_is_chosen():
    chance, fitted = CONSTANT + 20, CONSTANT + 60
    tried, found = choose(config(), (1900, 2000), (chance, fitted), (chance, chance))
    assert tried == [0.0, 0.01, 0.03]  # ascending, whatever their order, and no further than needed
    assert found.weight_decay == 0.03
    assert found.recipe("B", 32, "random", 0)["training"]["optimizer"]["weight_decay"] == 0.03


def test_the_best_constant_prediction_is_chance():
    assert CONSTANT / N > 0.11  # more than a tenth, and still nothing is fitted
    _, found = choose(config(), (2000, 2000), (CONSTANT + 40, CONSTANT))
    assert found.weight_decay == 0.01
    tried, _ = choose(config(), (2000, 2000), (CONSTANT + 41, CONSTANT), (CONSTANT, CONSTANT))
    assert tried[-1] == 0.03


def test_if_no_candidate_suffices_nothing_is_chosen():
    fitted = (1500, 1500)
    with pytest.raises(ConfigError, match=r"No weight decay among 0.01, 0.03, 0.1 .* weight_decays"):
        choose(config(), (2000, 2000), fitted, fitted, fitted)


def test_runs_too_short_to_memorise_choose_nothing():
    with pytest.raises(ConfigError, match=r"Without weight decay .* Train longer"):
        choose(config(), (2000, CONSTANT))


def test_a_run_that_failed_chooses_nothing():
    stages = weight_decay.chosen(config(), None)
    next(stages)
    with pytest.raises(ConfigError, match="failed"):
        stages.send([run(2000)])


@pytest.mark.parametrize("settings", [{"weight_decay": 0.5}, {"models": ("A",)}])
def test_a_given_one_or_none_at_all_trains_nothing(settings):
    tried, found = choose(config(**settings))
    assert tried == []
    assert found.weight_decay == settings.get("weight_decay")


def test_the_choice_has_a_seed_of_its_own():
    experiments = next(weight_decay.chosen(config(), None))
    assert {each.plain["recipe"]["seed"] for each in experiments} == {3}
    assert [each.plain["recipe"]["training"]["batch_size"] for each in experiments] == [128, 32]


def test_without_a_choice_there_is_no_recipe_of_b():
    with pytest.raises(ConfigError, match="weight_decay"):
        config().recipe("B", 32, "random", 0)


def test_the_page_shows_the_candidates_and_no_claim_uses_them():
    made = record(NAME, [run(right, decay) for decay, right in ((0.0, N), (0.01, 1200), (0.03, CONSTANT))])
    (table,) = blocks(made)
    assert "λ = 0.03" in table.reading
    assert [(line[0], line[-1]) for line in table.rows] == [("0", "yes"), ("0.01", "yes"), ("0.03", "no")]
    assert verdicts(made) == verdicts(record(NAME, []))


def test_a_record_that_stopped_before_the_choice_shows_that():
    (table,) = blocks(record(NAME, [run(N)]))
    assert "none was found" in table.reading


@pytest.mark.slow
def test_random_labels_on_digits_are_memorised_without_it_and_not_with_it(tmp_path):
    """The paper's central claim, in about a minute: with the chosen λ, B stays at the best constant prediction."""
    settings = {"seeds": 1, "models": ["A", "B"]}
    found, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    rows = found.rows()
    tried = rows.select(weight_decay.ACCURACY, {})
    assert [each.coords["weight_decay"] for each in tried] == [0.0, 0.03, 0.1]
    (a,), (b,) = (rows.select("train_accuracy", {"model": model}) for model in "AB")
    assert a.value == 1.0
    assert b.coords["weight_decay"] == 0.1
    assert b.value == rows.select("constant_accuracy", {"model": "B"})[0].value == 26 / 200
    assert "How the weight decay was chosen" in html.read_text("utf-8")
