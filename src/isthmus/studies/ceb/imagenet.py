"""ResNets on ImageNet: tables 1 and 2, figures 4 and 5 of Fischer & Alemi 2020.

The paper trained one model of each kind. A claim about ways of training needs three seeds.
"""

from __future__ import annotations

from statistics import fmean

from isthmus.core.types import Coordinate
from isthmus.metrics.corruption import CORRUPTIONS
from isthmus.studies.blocks import Block, Curves, Pivot, not_measured
from isthmus.studies.ceb.common import NORMS, over_rho
from isthmus.studies.ceb.imagenet_configs import VARIANTS, ImageNet152Config, ImageNetConfig
from isthmus.studies.claims import Claim, Comparison, OtherClaim
from isthmus.studies.estimates import Estimate, percent
from isthmus.studies.paper_values import paper_values
from isthmus.studies.quantities import Quantity, Select, estimate, select
from isthmus.studies.rows import Rows
from isthmus.studies.study import Study
from isthmus.studies.verdicts import Verdict, bonferroni, exceeds

ERRORS: dict[str, Select] = {
    "clean error": select("clean_error"),
    "mCE": select("mce"),
    "average error under corruptions": select("average_error"),
    "error on ImageNet-A": select("imagenet_a_error"),
    "error under PGD in ℓ2": select("pgd_error", norm="l2"),
    "error under PGD in ℓ∞": select("pgd_error", norm="linf"),
}
"""The summary numbers of the tables."""
PGD = select("pgd_error")
NOTHING, SOMETHING = 0.01, 0.10
"""Accuracies under PGD: "less than 1%" is the paper's; 10% lies below all that its ResNet-152 CEB models keep."""
ALIKE = 0.01
"""A smaller gain counts as none; the paper prints 152 and 152x2 within 0.2 points of each other."""
NAMES: dict[Coordinate, str] = {
    **dict(VARIANTS.items()),
    "determ": "deterministic",
    "ceb": "CEB",
    "chosen": "CEB at the chosen ρ",
    **{name: name.replace("_", " ") for name in CORRUPTIONS},
}

_SECTION = "CEB, Section 3.3"
Claims = list[Claim | OtherClaim]


def ours(error: Select, **coords: str) -> Select:
    """An error of CEB at the chosen ρ."""
    return error.at(objective="chosen", **coords)


def plain(error: Select, **coords: str) -> Select:
    """An error of the deterministic network."""
    return error.at(objective="determ", rho=None, **coords)


def _both_depths(config: ImageNetConfig) -> Claims:
    return [*(_beats(title, error) for title, error in ERRORS.items()), _steps(config), _falls()]


def _beats(title: str, error: Select) -> OtherClaim:
    """Whether CEB has a lower error everywhere: each gain is above 0, and so is the interval of their mean.

    A gain whose interval contains 0 may be due to the choice of images. One whose interval is below 0 contradicts.
    """
    gain = plain(error) - ours(error)
    trained = plain(ERRORS["clean error"]) - ours(ERRORS["clean error"])

    def judge(rows: Rows) -> tuple[Verdict, str]:
        variants = trained.values(rows, "variant")
        level = bonferroni(len(variants))
        found = {variant: estimate(gain.at(variant=variant), rows, level) for variant in variants}
        known = {variant: value for variant, value in found.items() if value is not None}
        if not variants or len(known) < len(variants):
            return Verdict.UNDECIDED, f"The {title} is not measured of both in every way of training."
        mean = _mean(list(known.values()))
        reason = "; ".join(f"{NAMES[str(variant)]}: by {value}" for variant, value in known.items())
        reason += f". On average {mean}; each gain above 0, and the whole interval of their average, counts."
        if Verdict.CONTRADICTED in [exceeds(value, 0.0) for value in known.values()]:
            return Verdict.CONTRADICTED, reason
        together = exceeds(mean, 0.0)
        everywhere = all(value.value > 0 for value in known.values())
        return together if together is not Verdict.SUPPORTED or everywhere else Verdict.UNDECIDED, reason

    text = f"CEB at the ρ of the best clean accuracy has a lower {title} than its baseline, everywhere."
    return OtherClaim(text, judge, _SECTION)


def _mean(gains: list[Estimate]) -> Estimate:
    """The mean of gains on the same images, with their mean width, since their errors may be correlated."""
    value, low, high = (fmean(getattr(one, part) for one in gains) for part in ("value", "low", "high"))
    n, seeds = min(one.n for one in gains), min(one.seeds for one in gains)
    return Estimate(value, low, high, n, seeds, gains[0].level, "points", gains[0].of_images)


def _steps(config: ImageNetConfig) -> Claim:
    pairs = [("plain", "autoaugment"), ("autoaugment", "wide")]
    tried = [pair for pair in pairs if set(pair) <= set(config.variants)] or pairs
    parts = [
        Comparison(
            left=ours(ERRORS[title], variant=before),
            right=ours(ERRORS[title], variant=after),
            about=f"{title}, less by {NAMES[after]}",
        )
        for title in ("mCE", "error on ImageNet-A")
        for before, after in tried
    ]
    text = "Under corruptions and on ImageNet-A AutoAugment helps CEB, and twice the width helps further."
    return Claim.joint(text, *parts, place=_SECTION)


def _falls() -> Claim:
    parts = [
        Comparison(
            left=PGD.at(objective="ceb", norm=norm).slope("rho"),
            over=("variant",),
            about=f"rise of the error under PGD in {NORMS[norm]} with ρ, for each unit",
        )
        for norm in ("linf", "l2")
    ]
    return Claim.joint("Robustness to PGD falls as ρ rises.", *parts, place=_SECTION)


def _nothing_left(*over: str) -> Comparison:
    """Whether PGD leaves the deterministic network next to no accuracy."""
    return Comparison(left=plain(PGD), right=1 - NOTHING, over=over, about="error of the deterministic network")


def _claims_50(config: ImageNetConfig) -> Claims:
    ceb = Comparison(
        left=PGD.at(objective="ceb"), right=1 - NOTHING, over=("variant", "rho", "norm"), about="error of CEB"
    )
    text = f"Under PGD every model has less than {percent(NOTHING)} accuracy."
    about_these_models = Claim.joint(text, _nothing_left("variant", "norm"), ceb, least_seeds=1, place=_SECTION)
    return [*_both_depths(config), about_these_models]


def _claims_152(config: ImageNet152Config) -> Claims:
    def gain(model: str, title: str) -> Quantity:
        pick = ours if model == "CEB" else plain
        return pick(ERRORS[title], variant="autoaugment") - pick(ERRORS[title], variant="wide")

    def none_for_determ(title: str, note: str = "") -> Comparison:
        about = f"gain of the deterministic network in {title}{note}"
        return Comparison(left=gain("deterministic", title), op="<", right=ALIKE, about=about)

    keeps = Comparison(left=ours(PGD), op="<", right=1 - SOMETHING, over=("variant", "norm"), about="error of CEB")
    return [
        *_both_depths(config),
        Claim.joint(
            f"Under PGD CEB keeps more than {percent(SOMETHING)} accuracy, and the deterministic network less than "
            f"{percent(NOTHING)}, everywhere.",
            keeps,
            _nothing_left("variant", "norm"),
            place=_SECTION,
        ),
        Claim(
            "AutoAugment makes CEB less robust to PGD.",
            left=ours(PGD, variant="autoaugment"),
            right=ours(PGD, variant="plain"),
            over=("norm",),
            about="error with AutoAugment less that without",
            place=_SECTION,
        ),
        Claim(
            "The wide CEB network with AutoAugment is more robust to PGD than the narrow one without.",
            left=ours(PGD, variant="plain"),
            right=ours(PGD, variant="wide"),
            over=("norm",),
            about="error of the narrow network less that of the wide one",
            place=_SECTION,
        ),
        Claim.joint(
            "Twice the width gains the deterministic network nothing in clean error and mCE, and CEB something in "
            "both.",
            none_for_determ("clean error", " (more images are needed to claim that width harms)"),
            none_for_determ("mCE"),
            *(Comparison(left=gain("CEB", title), about=f"gain of CEB in {title}") for title in ("clean error", "mCE")),
            place="CEB, Table 2",
        ),
    ]


def _blocks(config: ImageNetConfig) -> list[Block]:
    table = f"imagenet-{config.depth}"
    printed = config.depth in (50, 152)
    rhos = paper_values("ceb", f"{table}-rho") if printed else []
    theirs = ", ".join(f"{each.value:g} ({NAMES[str(each.coords['variant'])]})" for each in rhos)
    return [
        *(_over_rho(title, error) for title, error in ERRORS.items()),
        Pivot(
            title=f"ResNet-{config.depth} beside the paper's table",
            reading="Errors, lower is better; mCE is relative to AlexNet. ρ is that of the best clean accuracy, chosen "
            "on the test set as in the paper: the lowest within {tie:.1%} of the best." + f" The paper's: {theirs}.",
            rows=("variant", "objective"),
            columns={title: error.at(objective=("chosen", "determ"), rho=None) for title, error in ERRORS.items()},
            paper=table if printed else "",
        ),
        Pivot(
            title="The chosen ρ",
            reading="Of each way of training.",
            rows=("variant",),
            columns={"ρ": select("chosen_rho")},
        ),
        Pivot(
            title="Mean error under each corruption, over five severities",
            reading="CEB at the chosen ρ.",
            rows=("corruption",),
            columns={
                f"{head} {name}": select("corruption_error", variant=variant, objective=objective, rho=None)
                for variant, head in {"wide": "wide", "autoaugment": "AutoAugment", "plain": "plain"}.items()
                for name, objective in {"CEB": "chosen", "deterministic": "determ"}.items()
            },
            paper=f"{table}-corruptions" if printed else "",
        ),
        Pivot(
            title="All models",
            reading="Means over seeds.",
            rows=("variant", "objective", "rho"),
            columns={title: error.at(objective=("determ", "ceb")) for title, error in ERRORS.items()},
        ),
        not_measured,
    ]


def _over_rho(title: str, error: Select) -> Curves:
    relative = title == "mCE"
    return over_rho(
        title if relative else title[0].upper() + title[1:],
        error.at(objective="ceb"),
        {f"{text}, deterministic": plain(error, variant=variant) for variant, text in VARIANTS.items()},
        "error relative to AlexNet's" if relative else "error",
        lines="variant",
        reading="CEB over ρ, as means over seeds, and deterministic networks as levels.",
    )


_QUESTION = (
    "Do AutoAugment, width and CEB make a ResNet-{} on ImageNet more accurate, and robust to corruptions and attacks?"
)
STUDIES = (
    Study(
        name="ceb/imagenet-50",
        title="Table 1 and figure 4: ResNet-50 on ImageNet",
        question=_QUESTION.format(50),
        config=ImageNetConfig,
        measure="imagenet_experiments:imagenet",
        claims=_claims_50,
        blocks=_blocks,
        names=NAMES,
    ),
    Study(
        name="ceb/imagenet-152",
        title="Table 2 and figure 5: ResNet-152 on ImageNet",
        question=_QUESTION.format(152),
        config=ImageNet152Config,
        measure="imagenet_experiments:imagenet",
        claims=_claims_152,
        blocks=_blocks,
        names=NAMES,
    ),
)
