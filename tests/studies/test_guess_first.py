"""The studies of Guess First: what the paper prints, recipes, and claims on made-up records."""

import pytest

from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.studies import catalogue, page
from isthmus.studies.estimates import LEAST_SEEDS
from isthmus.studies.guess_first.configs import ATTACKS, MODELS, NORMS, PROPOSED, SIGMOID, SUBSTITUTE
from isthmus.studies.guess_first.experiments import doubted
from isthmus.studies.guess_first.representations import mmd_rows, points
from isthmus.studies.paper_values import paper_value, paper_values
from isthmus.studies.verdicts import Verdict
from tests.studies.records import blocks, fraction, measured, record, row, verdicts, with_interval

SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
OF_MODELS = "Of the models measured: "
TABLE_1, TABLE_2, FIGURE_2, FIGURE_3 = (
    f"guess-first/{name}" for name in ("table-1", "table-2", "figure-2", "figure-3")
)
JS = ("C-JS", "C-JS-IE")
N = 10_000
AS_PRINTED = {
    "table-1": """
        98.8 98.9 99.0 98.9 99.0 99.0
        65.6 84.7 88.0 91.1 89.8 83.6
        16.0 32.8 26.8 44.6 40.6 27.3
        53.7 84.1 85.0 87.2 87.6 74.3
        8.4 24.0 13.1 27.7 27.0 15.5
        63.4 76.0 74.4 79.3 74.8 66.7
        40.8 54.0 75.6 58.7 82.8 50.7
        13.4 23.8 74.4 31.9 81.1 19.1
        4.4 26.2 69.8 38.0 78.0 11.4
        0.0 4.8 29.7 7.4 50.0 1.0
        1.5 34.6 7.7 38.8 9.6 6.7""",
    "table-2": """
        91.7 91.3 92.0 90.4 91.0 92.3
        18.2 52.3 47.9 54.9 51.3 29.3
        9.6 24.2 19.8 28.8 24.7 15.3
        12.4 48.6 45.7 48.0 47.6 24.6
        4.8 15.3 11.8 15.9 14.5 6.6
        14.9 20.5 19.1 24.7 21.6 18.9
        14.4 32.6 43.5 33.8 49.3 27.9
        7.9 15.2 39.7 18.9 44.0 12.5
        3.6 14.0 38.5 17.0 41.2 7.7
        0.0 2.6 23.4 5.7 33.5 0.0
        0.0 8.4 2.9 11.7 3.5 0.0""",
}


def printed(table):
    """``{(access, attack, eps): {model: accuracy}}``; clean accuracy at ("none", "none", 0)."""
    found = {("none", "none", 0.0): {each.metric: each.value for each in paper_values("guess_first", f"{table}-clean")}}
    for each in paper_values("guess_first", table):
        place = tuple(each.coords[key] for key in ("access", "attack", "eps"))
        found.setdefault(place, {})[each.metric] = each.value
    return found


# --- what is printed ---


@pytest.mark.parametrize("table", AS_PRINTED)
def test_the_tables_are_as_printed(table):
    lines = [[float(number) for number in line.split()] for line in AS_PRINTED[table].split("\n")[1:]]
    assert [[round(100 * values[name], 1) for name in MODELS] for values in printed(table).values()] == lines
    places = [place[:2] for place in printed(table)]
    assert places[1:6] == [("black", attack) for attack in ("fgsm", "fgsm", "pgd", "pgd", "cw")]


def test_the_text_repeats_numbers_of_the_table():
    """Section 3.1."""

    def value(access, attack, eps, model):
        return paper_value("guess_first", "table-1", model, access=access, attack=attack, eps=eps)

    assert (value("black", "fgsm", 0.15, "CNN"), value("black", "pgd", 0.15, "CNN")) == (0.656, 0.537)
    assert min(value("black", attack, 0.15, name) for attack in ("fgsm", "pgd") for name in PROPOSED) > 0.84
    for plain in ("C-DV", "C-JS"):
        assert value("black", "fgsm", 0.3, f"{plain}-IE") - value("black", "fgsm", 0.3, plain) > 0.1
    under_cw = [value("black", "cw", 2.0, name) for name in PROPOSED]
    assert (value("black", "cw", 2.0, "CNN"), min(under_cw), max(under_cw)) == (0.634, 0.744, 0.793)
    assert [value("white", "fgsm", 0.15, name) for name in ("CNN", "C-DV", "C-DV-IE")] == [0.408, 0.54, 0.587]
    assert [value("white", "pgd", 0.15, name) for name in ("CNN", "C-DV", "C-DV-IE")] == [0.044, 0.262, 0.38]
    assert [value("white", "cw", 2.0, name) for name in ("CNN", "C-JS", "C-JS-IE")] == [0.015, 0.077, 0.096]


# --- what is trained and attacked ---


def test_recipes_are_the_papers():
    config = catalogue.find(TABLE_1).preset("paper")
    recipes = {name: load_recipe(config.recipe(name, 2)) for name in (*MODELS, SUBSTITUTE)}
    for recipe in recipes.values():
        training = recipe.training
        assert (recipe.seed, training.epochs, training.batch_size, training.optimizer.lr) == (2, 200, 250, 1e-3)
        assert (training.optimizer.name, training.precision) == ("adam", "float32")
    assert recipes["CNN"].model.backbone.hidden == (512, 256, 128)
    assert recipes["VIB"].model.backbone.hidden == (512, 256)
    assert recipes["VIB"].model.dim == 128
    assert recipes["VIB"].objective.weight() == pytest.approx(1e-3)
    assert recipes[SUBSTITUTE].model.backbone.name == "lenet5"
    for name in PROPOSED:
        guesses = recipes[name].model.hypothesis
        assert (guesses.hidden, guesses.inject, guesses.eliminated) == ((512, 256, 128), "concatenate", 2)
        assert recipes[name].objective.weight() == (1.0 if name.endswith("IE") else 0.0)
    assert recipes["C-JS"].objective.divergence == "js"
    assert len({recipe.name for recipe in recipes.values()}) == len(recipes)


def test_options_reach_the_recipes():
    make = catalogue.find(TABLE_2).config
    config = make(rho=1.5, elimination={"pairing": "all_classes"})
    assert load_recipe(config.recipe("C-DV-IE", 0)).objective.rho == 1.5
    assert load_recipe(config.recipe("C-JS-IE", 0)).objective.elimination.pairing == "all_classes"
    assert config.recipe("C-DV", 0) == make().recipe("C-DV", 0)
    assert config.recipe("C-DV", 0)["data"]["name"] == "fashion_mnist"
    assert make(data={"name": "emnist", "split": "digits"}).recipe("CNN", 0)["data"]["split"] == "digits"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linf": [0.1, 0.3]}, "linf must ascend and hold 0.15 and 0.3"),
        ({"l2": [2.0, 1.0]}, "l2 must ascend and hold 2"),
        ({"models": ["CNN", "CNN"]}, "each model once; got CNN, CNN"),
    ],
)
def test_grids_hold_the_tables_sizes(options, message):
    with pytest.raises(ConfigError, match=message):
        catalogue.find(TABLE_1).config(**options)


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_scales_share_their_models_and_attacks_over_studies(scale):
    table, curves, representations = (catalogue.find(name).preset(scale) for name in (TABLE_1, FIGURE_3, FIGURE_2))
    assert table.recipe("C-JS-IE", 0) == curves.recipe("C-JS-IE", 0) == representations.recipe("C-JS-IE", 0)
    for option in ("seeds", "images", "linf", "l2", "cw", "transfer_steps"):
        assert getattr(table, option) == getattr(curves, option)


@pytest.mark.parametrize("name", [TABLE_1, TABLE_2, FIGURE_2, FIGURE_3])
def test_every_scale_that_trains_for_results_has_three_seeds(name):
    study = catalogue.find(name)
    assert min(study.preset("small").seeds, study.preset("paper").seeds) >= LEAST_SEEDS


def test_a_sigmoid_shares_its_model():
    config = catalogue.find(TABLE_1).config()
    assert set(SIGMOID) <= set(config.models)
    for name in SIGMOID:
        assert config.recipe(name, 0) == config.recipe(name.removesuffix("-sigmoid"), 0)


# --- claims on made-up numbers ---


def curve(values, access, attack):
    """Rows of robust accuracy from ``{eps: accuracy}``."""
    norm = NORMS.get(attack, "linf")
    return [
        fraction("robust_accuracy", round(N * value), N, access=access, attack=attack, norm=norm, eps=eps)
        for eps, value in values.items()
    ]


def attacks_of(table, access, model):
    rows = []
    for attack in ATTACKS:
        values = {eps: found[model] for (a, b, eps), found in table.items() if (a, b) == (access, attack)}
        rows += curve(values, access, attack)
    return rows


STRONG = {"CNN": (0.01, 0.0), "VIB": (0.02, 0.0)} | dict.fromkeys(PROPOSED, (0.1, 0.01))
"""Accuracy after the ensemble at 0.15 and 0.30."""
NEVER = {"C-JS": 0.74, "C-JS-IE": 0.81}
"""Fraction of images that white-box FGSM never breaks."""


def white_box(table, model, never=0.0):
    return [
        fraction("test_accuracy", round(N * table["none", "none", 0.0][model]), N),
        row("chance", 0.1, "fraction", N),
        *attacks_of(table, "white", model),
        fraction("never_broken", round(N * never), N, attack="fgsm"),
    ]


def diagnosis(verdict="holds", failed=()):
    tests = {"one_step": ["fail" if "one_step" in failed else "pass", "FGSM is stronger than PGD"]}
    rows = [
        fraction("reported_accuracy", 300, 500),
        fraction("corrected_accuracy", 290, 500),
        doubted(verdict, failed, 500),
    ]
    return rows, {"verdict": verdict, "tests": tests}


def experiments(table, strong=STRONG, doubts=JS, never=NEVER, seeds=3, collapsed=(), verdict="holds"):
    """Experiments in which every seed has the same numbers.

    Args:
        table: as :func:`printed` gives it.
        doubts: models on which a test of the diagnosis fails.
    """
    found = []
    for seed in range(seeds):
        black = []
        for model in MODELS:
            own = {"model": model, "seed": seed}
            gone = model in collapsed
            found.append(measured(white_box(table, model, never.get(model, 0.0)), own, collapsed=gone))
            near_far = dict(zip((0.15, 0.3), strong[model], strict=True))
            found.append(measured(curve(near_far, "white", "ensemble"), own, collapsed=gone))
            rows, facts = diagnosis(verdict if model in doubts else "holds", ["one_step"] if model in doubts else [])
            found.append(measured(rows, own, details={"diagnosis": facts}, collapsed=gone))
            if not gone:
                black += [each.named(each.name, model=model) for each in attacks_of(table, "black", model)]
        substitute = [fraction("test_accuracy", 9800, N), *attacks_of(table, "black", "CNN")]
        substitute += [fraction("moved", N, N, attack=attack) for attack in ATTACKS]
        black += [each.named(each.name, model=SUBSTITUTE) for each in substitute]
        found.append(measured(black, {"seed": seed}))
    return found


def made(name, found, **config):
    options = {"linf": [0.15, 0.3], "l2": [2.0], "models": list(MODELS)}
    return record(name, found, **(options | config))


def judged(made_record):
    """Claim -> verdict; the page can be drawn."""
    found = catalogue.find(made_record.study).judge(made_record)
    assert "<svg" in page.render(made_record.model_copy(update={"claims": found}))
    return {each.claim: each.verdict for each in found}


def others(found, verdict=SUPPORTED):
    return {claim: each for claim, each in found.items() if each != verdict}


BETTER_THAN_VIB = "Each is more accurate than VIB under all black-box attacks."
TWINS = "Donsker-Varadhan is more accurate than its JS twin under black-box attacks at ε = 0.30 and under C&W."
NO_LOSS = "None of the four proposed models loses clean accuracy against the CNN."
TEN_POINTS = "Under black-box FGSM at ε = 0.15 each of the four is at least 10 points more accurate than the CNN."
UNDER_CW = "Each is more accurate than the CNN under black-box C&W."
DOUBT_JS = "Ours: the diagnosis doubts every C-JS and C-JS-IE measured, at ℓ∞ 0.15."
NO_DOUBT = "Ours: it doubts no C-DV and no C-DV-IE measured."
DOUBT_SIGMOID = "Ours: it doubts them with a sigmoid."
MASKING = "shows gradient masking: white-box FGSM is flat in ε, PGD falls, and C&W breaks it."


def test_the_claims_about_mnist_against_the_printed_numbers():
    """Two claims do not follow from the paper's own table, within the error of 10,000 images."""
    found = judged(made(TABLE_1, experiments(printed("table-1"))))
    assert len(found) == 19
    # C-JS under PGD at 0.30: 13.1 against 15.5
    assert others(found) == {BETTER_THAN_VIB: CONTRADICTED, TWINS: UNDECIDED}


def test_the_claims_about_fashion_mnist_against_the_printed_numbers():
    found = judged(made(TABLE_2, experiments(printed("table-2"))))
    assert len(found) == 18
    # clean: 90.4 against 91.7; C&W: 19.1 against 18.9
    assert others(found) == {NO_LOSS: UNDECIDED, BETTER_THAN_VIB: UNDECIDED, TWINS: UNDECIDED}


def test_the_opposite_is_contradicted():
    """The CNN is best everywhere, JS worst, elimination harms, and FGSM breaks more than the other attacks."""
    robust = {"CNN": 0.6, "VIB": 0.5, "C-DV": 0.3, "C-JS": 0.35, "C-DV-IE": 0.25, "C-JS-IE": 0.3}

    def value(access, attack, eps, model):
        if access == "none":
            return 0.99 if model == "CNN" else 0.9
        falls = 0.1 * ((access, attack, eps) == ("white", "fgsm", 0.3) and model in JS)
        return max(robust[model] - falls - 0.2 * (access == "white" and model in JS and attack != "cw"), 0.0)

    table = {place: {model: value(*place, model) for model in MODELS} for place in printed("table-1")}
    strong = {"CNN": (0.5, 0.3)} | dict.fromkeys(MODELS[1:], (0.3, 0.2))
    found = experiments(table, strong, ("C-DV", "C-DV-IE"), {"C-JS": 0.1, "C-JS-IE": 0.1})
    assert set(judged(made(TABLE_1, found)).values()) == {CONTRADICTED}


def test_one_seed_decides_only_claims_about_the_models_measured():
    found = judged(made(TABLE_1, experiments(printed("table-1"), seeds=1)))
    decided = others(found, UNDECIDED)
    single = {claim: verdict for claim, verdict in decided.items() if not claim.startswith(OF_MODELS)}
    assert set(single.values()) == {SUPPORTED}
    assert len(single) == 3
    assert all(claim.startswith("Ours: ") for claim in single)
    repeated = [claim.removeprefix(OF_MODELS) for claim in decided if claim.startswith(OF_MODELS)]
    assert len(repeated) == 15
    assert all(found[claim] == UNDECIDED for claim in repeated)
    assert not [
        claim for claim in judged(made(TABLE_1, experiments(printed("table-1")))) if claim.startswith(OF_MODELS)
    ]


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_few_seeds_that_lie_far_behind_contradict_for_themselves_alone(seeds):
    """48.8 points behind with n = 10,000."""
    table = {
        place: dict.fromkeys(MODELS, 0.2 if place[0] == "black" else 0.9)
        | ({"CNN": 0.688} if place[0] == "black" else {})
        for place in printed("table-1")
    }
    made_record = made(TABLE_1, experiments(table, STRONG, (), {}, seeds))
    found = {each.claim: each for each in catalogue.find(TABLE_1).judge(made_record)}
    for claim in (TEN_POINTS, UNDER_CW):
        if seeds == 3:
            assert found[claim].verdict == CONTRADICTED
            assert OF_MODELS + claim not in found
        else:
            assert found[claim].verdict == UNDECIDED
            assert found[OF_MODELS + claim].verdict == CONTRADICTED
            assert "−48.8 points" in found[OF_MODELS + claim].reason
            assert "interval over images alone" in found[OF_MODELS + claim].reason


def test_a_single_model_that_is_not_doubted_contradicts_the_claim_about_all():
    assert judged(made(TABLE_1, experiments(printed("table-1"), doubts=("C-JS",))))[DOUBT_JS] == CONTRADICTED
    found = judged(made(TABLE_1, experiments(printed("table-1"), doubts=MODELS, verdict="broken")))
    assert found[DOUBT_JS] == SUPPORTED
    assert found[NO_DOUBT] == CONTRADICTED


def test_collapsed_models_are_kept_apart():
    found = judged(made(TABLE_1, experiments(printed("table-1"), collapsed=("C-DV",))))
    assert found[TEN_POINTS] == UNDECIDED
    assert found[NO_DOUBT] == UNDECIDED
    assert found[f"C-JS {MASKING}"] == SUPPORTED


def test_nothing_measured_decides_nothing():
    empty = made(TABLE_1, [])
    assert set(verdicts(empty)) == {UNDECIDED}
    assert not blocks(empty)
    assert "Not finished" in page.render(empty)


def test_one_model_alone_decides_nothing_about_others():
    rows = white_box(printed("table-1"), "C-JS", 0.8)
    seeds = [measured(rows, {"model": "C-JS", "seed": seed}) for seed in range(3)]
    found = judged(made(TABLE_1, seeds, models=["C-JS"]))
    assert {claim for claim, verdict in found.items() if verdict != UNDECIDED} == {
        "About 80% of FGSM attacks fail to mislead C-JS at any size.",
        f"C-JS {MASKING}",
    }


def test_figure_3_has_its_own_claims_and_the_papers_points():
    kept = [each for each in experiments(printed("table-1")) if "diagnosis" not in each.get("details", {})]
    made_record = made(FIGURE_3, kept)
    found = judged(made_record)
    assert set(found.values()) == {SUPPORTED}
    assert sum("at every size up to" in claim for claim in found) == 3
    panels = [each for each in blocks(made_record) if "ensemble" not in each.title]
    assert [panel.title for panel in panels][:2] == [
        "Robust accuracy, FGSM, ℓ∞, black-box",
        "Robust accuracy, FGSM, ℓ∞, white-box",
    ]
    assert len(panels) == 6
    series = {one.name: one for one in panels[0].series}
    assert dict(zip(series["C-DV-IE, paper"].x, series["C-DV-IE, paper"].y, strict=True)) == {0.15: 0.911, 0.3: 0.446}
    assert series["C-DV-IE"].y == pytest.approx((0.911, 0.446))
    assert SUBSTITUTE not in series


def test_the_table_shows_ours_beside_the_papers():
    clean, attacked, strong, *_, diagnoses, substitutes = blocks(made(TABLE_1, experiments(printed("table-1"))))
    assert clean.columns == ("numbers", "seeds", *MODELS)
    assert attacked.columns == ("access", "attack", "norm", "ε", "numbers", "seeds", *MODELS)
    assert (len(clean.rows), len(attacked.rows)) == (2, 20)
    for ours, theirs in [*zip(attacked.rows[::2], attacked.rows[1::2], strict=True)]:
        assert (ours[4], theirs[4]) == ("ours", "Table 1")
        assert [f"{100 * metric.value:.6g}%" for metric in ours[6:]] == list(theirs[6:])
        assert all(metric.n == N and metric.interval for metric in ours[6:])
    assert [line[0] for line in strong.rows] == list(MODELS)
    assert strong.rows[2][3].value == pytest.approx(0.1)
    assert {line[0]: line[5] for line in diagnoses.rows} == {
        model: "one step" if model in JS else "none" for model in MODELS
    }
    assert len(substitutes.rows) == 3
    other = made(TABLE_1, experiments(printed("table-1")), data="digits")
    assert len(blocks(other)[1].rows) == 10, "the paper has no numbers of digits"


def with_sigmoid(fgsm, verdict):
    """The JS models beside those with a sigmoid: what FGSM leaves at 0.15 and 0.30, and the diagnosis."""
    table, found = printed("table-1"), experiments(printed("table-1"), doubts=(), never={})
    for name in SIGMOID:
        base = name.removesuffix("-sigmoid")
        other = {place: dict(values) for place, values in table.items()}
        for eps, value in zip((0.15, 0.3), fgsm, strict=True):
            other["white", "fgsm", eps][base] = value
        for seed in range(3):
            own = {"model": name, "seed": seed}
            found.append(measured(white_box(other, base, 0.8), own))
            rows, facts = diagnosis(verdict)
            found.append(measured(rows, own, details={"diagnosis": facts}))
    return made(TABLE_1, found, models=[*MODELS, *SIGMOID])


def test_a_sigmoid_is_judged_apart():
    """Scores that are log-ratios may be sound while their sigmoid masks the gradient, and the reverse."""
    masked = judged(with_sigmoid((0.756, 0.744), "overstated"))
    assert masked[DOUBT_SIGMOID] == SUPPORTED
    assert masked["About 80% of FGSM attacks fail to mislead C-JS-sigmoid at any size."] == SUPPORTED
    assert masked[DOUBT_JS] == CONTRADICTED
    believed = judged(with_sigmoid((0.5, 0.1), "holds"))
    assert believed[DOUBT_SIGMOID] == CONTRADICTED
    assert believed[f"C-JS-sigmoid {MASKING}"] == CONTRADICTED
    assert DOUBT_SIGMOID not in judged(made(TABLE_1, experiments(printed("table-1"))))


# --- figure 2 on made-up numbers ---


def representations(model, seed, mmd, predicted, own=95, fisher=True):
    under = [mmd + 0.01 * seed] * 10
    found = {
        "unbiased": under,
        "biased": [value + 0.01 for value in under],
        "shuffled": [0.01] * 10,
        "in_blocks": [[mmd - 0.02, mmd, mmd + 0.02]] * 10,
    }
    rows = [fraction("test_accuracy", 9900, N), *mmd_rows(found, 1000)]
    for k in range(10):
        rows += [
            fraction("probe_accuracy", predicted + seed, 1000, hypothesis=k),
            fraction("own_class_recall", own, 100, hypothesis=k),
            row("chance", 0.1, "fraction", 1000, hypothesis=k),
        ]
    if fisher:  # ln J falls with MMD² here: 5 at an MMD² of 0.5
        value = 10 * mmd
        rows += [
            with_interval("log_fisher_trace", value + 1, value + 0.8, value + 1.2, "nats", 500),
            with_interval("log_fisher_largest", value, value - 0.2, value + 0.2, "nats", 500),
        ]
    drawn = points(1, [((0.1, -0.2), True), ((0.3, 0.4), False)], (0.5, 0.2)) if seed == 0 else {}
    return measured(rows, {"model": model, "seed": seed}, details={"points": drawn} if drawn else {})


def figure_2(plain, eliminated, own=95, seeds=3, fisher=True):
    found = []
    for seed in range(seeds):
        for model in ("C-DV", "C-JS"):
            found.append(representations(model, seed, *plain, fisher=fisher))
            found.append(representations(f"{model}-IE", seed, *eliminated, own, fisher))
    return record(FIGURE_2, found)


@pytest.mark.parametrize(
    ("made_record", "expected"),
    [
        (figure_2((0.5, 900), (0.3, 600)), [SUPPORTED] * 8),
        (figure_2((0.3, 105), (0.5, 150), own=20), [CONTRADICTED] * 8),
        (figure_2((0.5, 900), (0.49, 890)), [UNDECIDED] * 6 + [SUPPORTED] * 2),
        (figure_2((0.5, 900), (0.3, 600), seeds=1), [UNDECIDED, SUPPORTED] * 6 + [SUPPORTED] * 2),
        (figure_2((0.5, 900), (0.3, 600), fisher=False), [SUPPORTED] * 4 + [UNDECIDED] * 2 + [SUPPORTED] * 2),
    ],
)
def test_claims_about_the_elimination(made_record, expected):
    assert list(judged(made_record).values()) == expected


def test_figure_2_draws_points_by_whether_the_label_is_the_hypothesis():
    *projections, discrepancy, probe, table, fisher = blocks(figure_2((0.5, 900), (0.3, 600)))
    assert [each.title.split(",")[1].strip() for each in projections] == ["C-DV", "C-DV-IE", "C-JS", "C-JS-IE"]
    assert {one.name: (one.x, one.y) for one in projections[0].series} == {
        "label is 1": ((0.1,), (-0.2,)),
        "other labels": ((0.3,), (0.4,)),
    }
    assert discrepancy.series[0].y[0] == pytest.approx(0.51)
    assert discrepancy.series[0].low[0] < 0.5 - 0.0248  # t interval of the blocks alone: 4.303 · 0.02/√3
    assert probe.series[0].y[0] == pytest.approx(0.901)
    sums = {line[0]: dict(zip(table.columns, line, strict=True)) for line in table.rows}
    total = sums["C-DV-IE"]["Σ MMD², unbiased"]
    assert total.value == pytest.approx(3.1)
    assert total.interval.low < 3.1 < total.interval.high
    assert sums["C-DV-IE"]["chance"].value == pytest.approx(0.1)
    largest = {line[0]: line[3] for line in fisher.rows}["C-DV"]
    assert (largest.value, largest.interval.low, largest.n) == (pytest.approx(5.0), pytest.approx(4.8), 500)
