"""The choice of λ in the rate-distortion studies: the rule on made-up runs, its refusals, and the way on digits."""

import pytest

from isthmus.core.errors import ConfigError
from isthmus.studies import catalogue
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion import weight_decay
from isthmus.studies.running import run_study

NAME = "rate-distortion/table-2"
N, CONSTANT = 2000, 224


def config(**settings):
    return catalogue.find(NAME).Config(seeds=3, weight_decays=(0.1, 0.01, 0.03), **settings)


def answer(cells, rights):
    """What the runs of one candidate are made to give: one number of right answers for each batch size."""
    return [
        {"choice": True, "weight_decay": 0.0, "batch_size": 32, "seed": 3, "train": [right, N], "constant": CONSTANT}
        for _, right in zip(cells, rights, strict=True)
    ]


def choose(given, *rights):
    """Drive the stages; returns the candidates that were trained and the config that comes out."""
    stages, tried = weight_decay.chosen(given, None), []
    try:
        cells = next(stages)
        for each in rights:
            tried.append({cell.plain["recipe"]["training"]["optimizer"].get("weight_decay", 0.0) for cell in cells})
            cells = stages.send(answer(cells, each))
    except StopIteration as over:
        return [each for (each,) in tried], over.value
    raise AssertionError("it asks for more")


def test_the_smallest_that_stops_the_fitting_at_every_batch_size_is_chosen():
    chance, fitted = CONSTANT + 20, CONSTANT + 60
    tried, found = choose(config(), (1900, 2000), (chance, fitted), (chance, chance))
    assert tried == [0.0, 0.01, 0.03]  # ascending, whatever their order, and no further than needed
    assert found.weight_decay == 0.03
    assert found.recipe("B", 32, "random", 0)["training"]["optimizer"]["weight_decay"] == 0.03


def test_the_best_constant_answer_is_chance():
    at = {"train": [CONSTANT, N], "constant": CONSTANT}
    assert CONSTANT / N > 0.11  # more than a tenth, and still nothing is fitted
    assert not weight_decay.fits(at)
    assert not weight_decay.fits(at | {"train": [CONSTANT + 40, N]})
    assert weight_decay.fits(at | {"train": [CONSTANT + 41, N]})


def test_where_no_candidate_suffices_nothing_is_chosen():
    fitted = (1500, 1500)
    with pytest.raises(ConfigError, match=r"No weight decay among 0.01, 0.03, 0.1 .* weight_decays"):
        choose(config(), (2000, 2000), fitted, fitted, fitted)


def test_runs_too_short_to_memorise_choose_nothing():
    with pytest.raises(ConfigError, match=r"Without weight decay .* Train longer"):
        choose(config(), (2000, CONSTANT))


def test_a_run_that_failed_chooses_nothing():
    stages = weight_decay.chosen(config(), None)
    cells = next(stages)
    with pytest.raises(ConfigError, match="failed"):
        stages.send(answer(cells[:1], (2000,)))


@pytest.mark.parametrize("settings", [{"weight_decay": 0.5}, {"models": ("A",)}])
def test_a_given_one_or_none_at_all_trains_nothing(settings):
    tried, found = choose(config(**settings))
    assert tried == []
    assert found.weight_decay == settings.get("weight_decay")


def test_the_choice_has_a_seed_of_its_own():
    cells = next(weight_decay.chosen(config(), None))
    assert {cell.plain["recipe"]["seed"] for cell in cells} == {3}
    assert [cell.plain["recipe"]["training"]["batch_size"] for cell in cells] == [128, 32]


def test_without_a_choice_there_is_no_recipe_of_b():
    with pytest.raises(ConfigError, match="weight_decay"):
        config().recipe("B", 32, "random", 0)


def test_the_page_shows_the_grid_and_claims_do_not_see_it():
    runs = {
        f"choice {decay}": {
            "choice": True, "weight_decay": decay, "batch_size": 32, "seed": 3, "train": [right, N],
            "constant": CONSTANT, "test": [200, N], "chance": 0.1, "classes": 10,
        }
        for decay, right in ((0.0, N), (0.01, 1200), (0.03, CONSTANT))
    }  # fmt: skip
    module = catalogue.find(NAME)
    record = StudyRecord(study=NAME, scale="small", config=config().plain(), cells=runs, total=3)
    (table,) = module.section(record).blocks
    assert "λ = 0.03" in table.reading
    assert [(line[0], line[-1]) for line in table.rows] == [("0", "yes"), ("0.01", "yes"), ("0.03", "no")]
    assert weight_decay.judged(record).cells == {}
    assert module.findings(record) == module.findings(record.model_copy(update={"cells": {}}))


def test_a_record_that_stopped_before_the_choice_says_so():
    cell = {"choice": True, "weight_decay": 0.0, "batch_size": 32, "seed": 3, "train": [N, N], "constant": CONSTANT}
    record = StudyRecord(study=NAME, scale="small", config=config().plain(), cells={"0": cell}, total=9)
    (table,) = catalogue.find(NAME).section(record).blocks
    assert "none was found" in table.reading


@pytest.mark.slow
def test_random_labels_on_digits_are_memorised_without_it_and_not_with_it(tmp_path):
    """The paper's central claim, in about a minute: with the λ that is chosen, B keeps to the best constant answer."""
    settings = {"seeds": 1, "models": ["A", "B"]}
    measured, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    assert [cell["weight_decay"] for cell in measured.each(choice=True)] == [0.0, 0.03, 0.1]
    (a,), (b,) = measured.each(model="A"), measured.each(model="B")
    assert a["train"] == [200, 200]
    assert b["weight_decay"] == 0.1
    assert b["train"] == [b["constant"], 200] == [26, 200]
    assert "How the weight decay was chosen" in html.read_text("utf-8")
