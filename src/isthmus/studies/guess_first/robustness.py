"""Tables 1 and 2 and figure 3: accuracy under FGSM, PGD and C&W, a strong ensemble, and the diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from isthmus.core.display import Table
from isthmus.core.types import Coordinate, Metric
from isthmus.studies.blocks import Block, Curves, Pivot
from isthmus.studies.claims import Claim, Comparison, OtherClaim
from isthmus.studies.estimates import percent
from isthmus.studies.guess_first.configs import (
    ATTACKS,
    L2,
    LINF,
    MODELS,
    NORMS,
    PROPOSED,
    SIGMOID,
    SIZES,
    SUBSTITUTE,
    CurvesConfig,
    FashionConfig,
    TableConfig,
)
from isthmus.studies.quantities import Select, select
from isthmus.studies.rows import Rows
from isthmus.studies.study import Study, StudyRecord, data_name
from isthmus.studies.verdicts import Verdict

LOSS = 0.01
"""A smaller loss of clean accuracy counts as none."""
MARGIN = 0.1
"""A lead over the CNN under black-box FGSM at ε = 0.15, and what the elimination adds at 0.30 on MNIST."""
FLAT, FALL, BROKEN = 0.1, 0.05, 0.2
"""From ε = 0.15 to 0.30, FGSM's curve is flat if it falls by less, and PGD's falls if by more; C&W breaks a model if it
leaves less."""
MOST = 0.7
"""More than this is "about 80%"."""

JS, DV = ("C-JS", "C-JS-IE"), ("C-DV", "C-DV-IE")
OVER_CNN, OVER_VIB = ([(name, other) for name in PROPOSED] for other in ("CNN", "VIB"))
ELIMINATION = (("C-DV-IE", "C-DV"), ("C-JS-IE", "C-JS"))
OBJECTIVES = (("C-DV", "C-JS"), ("C-DV-IE", "C-JS-IE"))
NAMES: Mapping[Coordinate, str] = {
    "black": "black-box",
    "white": "white-box",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "cw": "C&W",
    "ensemble": "ensemble",
    "linf": "ℓ∞",
    "l2": "ℓ2",
    **{name: name for name in (*MODELS, *SIGMOID)},
}
CLEAN = select("test_accuracy")
ROBUST = select("robust_accuracy")
_SHOWN = (*MODELS, *SIGMOID)


def _under(access: str, *attacks: str, eps: Sequence[float] = LINF) -> Select:
    return ROBUST.at(access=access, attack=attacks, eps=tuple(eps))


def _leads(
    text: str, pairs: Iterable[tuple[str, str]], *accuracies: Select, margin: float = 0.0, place: str = "Section 3.1"
) -> Claim:
    """The first model of each pair is more accurate than the second one, at each attack and ε of these accuracies."""
    first, *others = (
        Comparison(
            left=accuracy.at(model=model),
            right=accuracy.at(model=other),
            margin=margin,
            over=tuple(key for key, value in accuracy.where.items() if isinstance(value, tuple)),
            about=f"accuracy of {model} less that of {other}",
        )
        for model, other in pairs
        for accuracy in accuracies
    )
    return Claim(text, **vars(first), also=tuple(others), of_models=True, place=place)


def _black_box_claims(gain: bool) -> list[Claim]:
    """Claims of section 3.1.

    Args:
        gain: with the size of what the elimination adds, which is claimed of MNIST.
    """
    fgsm, pgd, cw = (_under("black", "fgsm"), _under("black", "pgd"), _under("black", "cw", eps=L2))
    near, far = LINF
    more = _leads(
        f"There the elimination adds more than {100 * MARGIN:g} points.",
        ELIMINATION,
        _under("black", "fgsm", eps=(far,)),
        margin=MARGIN,
    )
    return [
        _leads("None of the four proposed models loses clean accuracy against the CNN.", OVER_CNN, CLEAN, margin=-LOSS),
        _leads(
            f"Under black-box FGSM at ε = {near:g} each of the four is at least {100 * MARGIN:g} points more accurate "
            "than the CNN.",
            OVER_CNN,
            _under("black", "fgsm", eps=(near,)),
            margin=MARGIN,
        ),
        _leads("Each is more accurate than the CNN under black-box PGD, at ε = 0.15 and at 0.30.", OVER_CNN, pgd),
        _leads("Each is more accurate than the CNN under black-box C&W.", OVER_CNN, cw),
        _leads("Each is more accurate than VIB under all black-box attacks.", OVER_VIB, fgsm, pgd, cw),
        _leads(
            "Information elimination helps under black-box FGSM at ε = 0.30.",
            ELIMINATION,
            _under("black", "fgsm", eps=(far,)),
        ),
        *([more] if gain else []),
        _leads(
            "Donsker-Varadhan is more accurate than its JS twin under black-box attacks at ε = 0.30 and under C&W.",
            OBJECTIVES,
            _under("black", "fgsm", "pgd", eps=(far,)),
            cw,
        ),
    ]


def _white_box_claims(config: CurvesConfig) -> list[Claim]:
    """Claims of section 3.1, and the signature of gradient masking in it."""
    others = [name for name in config.models if name not in (*JS, *SIGMOID)] or ["CNN"]
    single = [name for name in (*JS, *SIGMOID) if name in JS or name in config.models]
    linf, cw = _under("white", "fgsm", "pgd"), _under("white", "cw", eps=L2)
    return [
        _leads(
            "The JS models are more accurate than all others under white-box FGSM and PGD.",
            [(model, other) for model in JS for other in others],
            linf,
        ),
        *(
            Claim(
                f"About 80% of FGSM attacks fail to mislead {name} at any size.",
                left=select("never_broken", attack="fgsm", model=name),
                right=MOST,
                about="images that no step up to ε = 1 breaks",
                of_models=True,
                place="Section 3.1",
            )
            for name in single
        ),
        _leads(
            "The Donsker-Varadhan models are more accurate than the CNN under every white-box attack.",
            [(name, "CNN") for name in DV],
            linf,
            cw,
        ),
        _leads("Under white-box C&W Donsker-Varadhan is more accurate than its JS twin.", OBJECTIVES, cw),
        *(_masked(name) for name in single),
    ]


def _masked(name: str) -> Claim:
    white = ROBUST.at(access="white", model=name)
    fgsm, pgd = (white.at(attack=attack, eps=LINF[0]) - white.at(attack=attack, eps=LINF[1]) for attack in ATTACKS[:2])
    under_cw = white.at(attack="cw", eps=L2[0])
    return Claim(
        f"{name} shows gradient masking: white-box FGSM is flat in ε, PGD falls, and C&W breaks it.",
        left=fgsm,
        op="<",
        right=FLAT,
        about="fall under FGSM from ε = 0.15 to 0.30",
        also=(
            Comparison(left=pgd, right=FALL, about="fall under PGD from ε = 0.15 to 0.30"),
            Comparison(left=under_cw, op="<", right=BROKEN, about="accuracy under C&W at ℓ2 2"),
        ),
        of_models=True,
        place="Section 3.1",
    )


def _our_claims(config: TableConfig) -> list[Claim | OtherClaim]:
    """What the paper does not measure. Claims about diagnoses and about chance are about the very models measured."""
    near, far = LINF
    ensemble = ROBUST.at(attack="ensemble", access="white", norm="linf")
    with_sigmoid = _doubt(SIGMOID, "Ours: it doubts them with a sigmoid.", True)
    return [
        _doubt(JS, f"Ours: the diagnosis doubts every C-JS and C-JS-IE measured, at ℓ∞ {near:g}.", True),
        *([with_sigmoid] if set(SIGMOID) <= set(config.models) else []),
        _doubt(DV, "Ours: it doubts no C-DV and no C-DV-IE measured.", False),
        _leads(
            f"At ℓ∞ {near:g} a strong ensemble leaves more of each of the four than of the CNN.",
            OVER_CNN,
            ensemble.at(eps=near),
            place="not in the paper",
        ),
        Claim(
            f"Ours: at ℓ∞ {far:g} it leaves no more than chance of any of the four measured.",
            left=ensemble.at(eps=far, model=PROPOSED),
            op="<",
            right=select("chance", model=PROPOSED),
            over=("model", "seed"),
            about="accuracy less chance",
            least_seeds=1,
        ),
    ]


def _doubt(names: Sequence[str], text: str, expected: bool) -> OtherClaim:
    return OtherClaim(text, partial(_doubted, names=names, expected=expected))


def _doubted(rows: Rows, names: Sequence[str], expected: bool) -> tuple[Verdict, str]:
    found = rows.select("doubted", {"model": tuple(names)})
    if missing := [name for name in names if name not in {row.coords["model"] for row in found}]:
        return Verdict.UNDECIDED, f"Not measured: no diagnosis of a run of {missing[0]} that did not collapse."
    reasons = []
    for row in found:
        model, seed = row.coords["model"], row.coords["seed"]
        reported, corrected = _accuracies(rows, model, seed)
        accuracies = f"{percent(reported.value or 0)} reported and {percent(corrected.value or 0)} left of {row.n:,}"
        reasons.append(f"{model}, seed {seed}: {row.note}; {accuracies}")
    as_claimed = all((row.value == 1) == expected for row in found)
    reason = f"{'. '.join(reasons)}. A verdict other than “holds”, or a failed test, is a doubt."
    return Verdict.SUPPORTED if as_claimed else Verdict.CONTRADICTED, reason


def _table_claims(config: TableConfig, gain: bool) -> list[Claim | OtherClaim]:
    return [*_black_box_claims(gain), *_white_box_claims(config), *_our_claims(config)]


def _curves_claims(config: CurvesConfig) -> list[Claim]:
    """Up to the tables' sizes: beyond them every model may have no accuracy."""
    ahead = []
    for attack in ATTACKS:
        last = SIZES[NORMS[attack]][-1]
        grid = [eps for eps in config.sizes(attack) if eps <= last]
        text = (
            f"Under black-box {NAMES[attack]} the four proposed models are more accurate than the CNN at every size up "
            f"to {NAMES[NORMS[attack]]} {last:g}."
        )
        ahead.append(_leads(text, OVER_CNN, _under("black", attack, eps=grid), place="Figure 3"))
    return [*ahead, *_white_box_claims(config)]


def _paper_table(config: CurvesConfig) -> str:
    return "table-2" if data_name(config.data) == "fashion_mnist" else "table-1"


def _table_blocks(config: TableConfig) -> list[Block]:
    paper = _paper_table(config)
    attacked = ROBUST.at(attack=ATTACKS, eps=(*LINF, *L2))
    strong = ROBUST.at(access="white", model=_SHOWN)
    on_substitute = ROBUST.at(access="black", model=SUBSTITUTE)
    at_near, at_far = (f"ℓ∞ {eps:g}" for eps in LINF)
    at_l2 = f"ℓ2 {L2[0]:g}"
    return [
        Pivot(
            title="Clean accuracy",
            reading="On the whole test set, means over seeds. A sigmoid changes no prediction.",
            rows=(),
            columns={name: CLEAN.at(model=name) for name in config.models},
            paper=f"{paper}-clean",
        ),
        Pivot(
            title="Accuracy under attack",
            reading="Means over seeds. White-box: the fraction of images whose smallest perturbation found is larger "
            "than ε, as Foolbox 1 measured it. Black-box: right before and after, on images made on a LeNet-5 "
            "substitute; C&W's perturbations are scaled to ε. VIB is evaluated in mean mode. A sigmoid changes no "
            "prediction, and so nothing black-box.",
            rows=("access", "attack", "norm", "eps"),
            columns={name: attacked.at(model=name) for name in config.models},
            paper=paper,
        ),
        Pivot(
            title="Accuracy after a strong ensemble, white-box",
            reading="The suite {suite} on the same images, beside the strongest attack of the time in each norm. "
            "Robustness to the old attack alone is not genuine.",
            rows=("model",),
            columns={
                f"PGD of the time, {at_near}": strong.at(attack="pgd", eps=LINF[0]),
                f"ensemble, {at_near}": strong.at(attack="ensemble", eps=LINF[0]),
                f"ensemble, {at_far}": strong.at(attack="ensemble", eps=LINF[1]),
                f"C&W, {at_l2}": strong.at(attack="cw", eps=L2[0]),
                f"ensemble, {at_l2}": strong.at(attack="ensemble", eps=L2[0]),
            },
        ),
        _curves(ROBUST.at(access=("white",), attack=("fgsm", "pgd", "ensemble"), norm=("linf",), model=_SHOWN), paper),
        _diagnoses,
        Pivot(
            title="The substitutes under the images made on them",
            reading="Accuracy of the substitute itself under each attack; and the fraction of images for which C&W "
            "found a perturbation that could be scaled.",
            rows=("seed",),
            columns={
                "clean": CLEAN.at(model=SUBSTITUTE),
                **{
                    f"{NAMES[attack]}, {NAMES[norm]} {eps:g}": on_substitute.at(attack=attack, eps=eps)
                    for attack, norm in NORMS.items()
                    for eps in SIZES[norm]
                },
                "C&W found": select("moved", attack="cw", model=SUBSTITUTE),
            },
        ),
    ]


def _curves(accuracy: Select, paper: str) -> Curves:
    return Curves(
        title="Robust accuracy",
        reading="Means over seeds; at ε = 0 the same images without a perturbation. Points: the paper's.",
        y=accuracy,
        x="eps",
        lines=("model",),
        panels=("attack", "norm", "access"),
        y_label="accuracy",
        interval=True,
        y_range=(0.0, 1.0),
        paper=paper,
    )


def _curves_blocks(config: CurvesConfig) -> list[Block]:
    return [_curves(ROBUST.at(model=_SHOWN), _paper_table(config))]


def _diagnoses(record: StudyRecord, config: TableConfig) -> Iterator[Table]:
    """Each model on a line, with the first failed test's reason."""
    rows, found = record.rows(), record.details("diagnosis")
    lines: list[tuple[str | Metric, ...]] = []
    for coords, facts in sorted(found, key=lambda each: config.models.index(each[0]["model"])):
        model, seed = coords["model"], coords["seed"]
        failed = {test: reason for test, (status, reason) in facts["tests"].items() if status == "fail"}
        tests = ", ".join(test.replace("_", " ") for test in failed) or "none"
        reason = next(iter(failed.values()), "")
        lines.append((f"{model}", f"{seed}", facts["verdict"], *_accuracies(rows, model, seed), tests, reason))
    if lines:
        yield Table(
            title=f"Is the robustness genuine? The verdict at ℓ∞ {LINF[0]:g}",
            reading="Reported: the accuracy under one run of PGD-40 with the cross-entropy. Corrected: after every "
            "test and follow-up attack. Each line is one model, evaluated in mean mode.",
            columns=("model", "seed", "verdict", "reported", "corrected", "tests failed", "reason of the first"),
            rows=tuple(lines),
        )


def _accuracies(rows: Rows, model: Coordinate, seed: Coordinate) -> list[Metric]:
    """The reported and the corrected accuracy of a diagnosed model."""
    names = ("reported_accuracy", "corrected_accuracy")
    return [row for name in names for row in rows.select(name, {"model": model, "seed": seed})]


_table = partial(Study, measure="experiments:table", blocks=_table_blocks, names=NAMES)
STUDIES = (
    _table(
        name="guess-first/table-1",
        title="Table 1: Guess-First classifiers on MNIST",
        question="How robust are a CNN, VIB and four Guess-First classifiers on MNIST, and is that robustness genuine?",
        config=TableConfig,
        claims=partial(_table_claims, gain=True),
    ),
    _table(
        name="guess-first/table-2",
        title="Table 2: Guess-First classifiers on Fashion-MNIST",
        question="How robust are the classifiers of table 1 on Fashion-MNIST, and is that robustness genuine?",
        config=FashionConfig,
        claims=partial(_table_claims, gain=False),
    ),
    Study(
        name="guess-first/figure-3",
        title="Figure 3: accuracy over perturbation size",
        question="How does the accuracy of Guess-First classifiers fall with the perturbation size, black- and "
        "white-box?",
        config=CurvesConfig,
        measure="experiments:curves",
        claims=_curves_claims,
        blocks=_curves_blocks,
        names=NAMES,
    ),
)
