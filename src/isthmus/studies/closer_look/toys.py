"""Figures 5, 6 and 7: toy problems with one feature to rely on.

The first (:class:`isthmus.data.toys.Intervals`): sign(x₁) is always right and needs ln 2 nats; x₂ adds nothing and can
be moved. The robust set holds only points whose x₂ lies on the wrong side (appendix); the attack of the main text, x₂
moved by 1 against the label, is measured beside it. The second, of Tsipras et al. 2019
(:class:`isthmus.data.toys.Gaussians`): x₁ is right in 95% and cannot be moved; a hundred Gaussians together are right
in 99.9%, and an attacker turns them all round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from scipy.special import bdtr

from isthmus.core.display import Mark, Table
from isthmus.core.types import Coordinate, Metric
from isthmus.studies.blocks import Block, Pivot, Scatter
from isthmus.studies.claims import Claim, Comparison, OtherClaim
from isthmus.studies.closer_look import images
from isthmus.studies.closer_look.configs import OF_MNIST, GaussiansConfig, SamplesConfig, ToyConfig
from isthmus.studies.estimates import points
from isthmus.studies.quantities import Quantity, Select, estimate, select
from isthmus.studies.rows import Rows
from isthmus.studies.study import Study, StudyConfig, StudyRecord
from isthmus.studies.verdicts import Verdict, all_of, any_of, bonferroni, exceeds, falls_below

MODES = ("mean", "stochastic")
COLLAPSED = 0.6
"""A classifier collapsed unless its accuracy on clean points is higher: it is hardly better than chance."""
MARGIN = 0.01
"""A loss of accuracy on the rare points that counts as relying on x₂, or a gain under attack that counts."""
RELIABILITY, NEAR = 0.9, 0.03
"""How often sign(x₂) is the label's in the paper, and how far from it still counts as that."""


def softplus(offset: float) -> str:
    """How σ follows from the encoder's output s: "σ = softplus(s − 5)"."""
    shift = f" {'−' if offset < 0 else '+'} {abs(offset):g}" if offset else ""
    return f"σ = softplus(s{shift})"


NAMES: Mapping[Coordinate, str] = {
    **images.NAMES,
    "determ": "linear, deterministic",
    **{offset: softplus(offset) for offset in (0.0, OF_MNIST)},
}


def _vib(points: str, mode: str, offset: float) -> Select:
    return select("accuracy", objective="vib", points=points, mode=mode, std_offset=offset)


def _linear(points: str) -> Select:
    return select("accuracy", objective="determ", points=points, mode="mean", beta=None)


def _trained(mode: str, offset: float) -> Comparison:
    """That a classifier did not collapse."""
    return Comparison(left=_vib("clean", mode, offset), right=COLLAPSED)


# --- figure 5 ---


def _rare_claims(config: ToyConfig) -> list[Claim]:
    return [
        Claim(
            f"VIB does not rely on x₁ alone and is prone to an attack on x₂ ({mode} mode, {softplus(offset)}).",
            left=_vib("clean", mode, offset) - _vib("rare", mode, offset),
            right=MARGIN,
            over=("beta",),
            where=_trained(mode, offset),
            about="accuracy that rare points cost (the optimum would lose nothing)",
            place="Section 3.3",
        )
        for offset in config.std_offsets
        for mode in MODES
    ]


# --- figure 7 ---


def _robust_claims(config: ToyConfig) -> list[Claim | OtherClaim]:
    """VIB is more robust, but in stochastic mode alone, and at a price; for each reading of σ."""
    return [claim for offset in config.std_offsets for claim in _claims_of(offset)]


def _gain(points: str, mode: str, offset: float) -> Quantity:
    return _vib(points, mode, offset) - _linear(points)


def _claims_of(offset: float) -> list[Claim | OtherClaim]:
    reading, trained = softplus(offset), _trained("stochastic", offset)
    claim = partial(Claim, over=("beta",), place="Figure 7")
    stochastic = _gain("attacked", "stochastic", offset)
    return [
        claim(
            f"In stochastic mode VIB is more robust than the linear classifier ({reading}).",
            left=stochastic,
            right=MARGIN,
            every="any",
            where=trained,
            about="accuracy under attack, VIB less linear",
        ),
        claim(
            f"In mean mode it is not, at any β ({reading}).",
            left=_gain("attacked", "mean", offset),
            op="<",
            right=MARGIN,
            where=_trained("mean", offset),
            about="accuracy under attack, VIB less linear",
        ),
        OtherClaim(
            f"At some β it is more robust in stochastic mode and not in mean mode ({reading}).",
            partial(_at_some_beta, offset=offset),
            "Figure 7",
        ),
        claim(
            f"At some β it is more robust in stochastic mode than in mean mode ({reading}).",
            left=_vib("attacked", "stochastic", offset),
            right=_vib("attacked", "mean", offset),
            margin=MARGIN,
            every="any",
            where=trained,
            about="accuracy under attack, stochastic less mean mode",
        ),
        claim(
            f"Clean and robust accuracy are at odds ({reading}).",
            left=_gain("clean", "stochastic", offset),
            op="<",
            where=Comparison(left=stochastic, right=MARGIN, where=trained),
            about="clean accuracy, VIB less linear, where it is more robust",
        ),
    ]


def _at_some_beta(rows: Rows, offset: float) -> tuple[Verdict, str]:
    """The weaker reading of the first two claims: the paper shows its figure and does not say at which β."""
    both = [_trained(mode, offset) for mode in MODES]
    betas = [
        beta for beta in both[0].left.values(rows, "beta") if all(each.holds({"beta": beta}, rows) for each in both)
    ]
    level, verdicts, gains = bonferroni(len(betas)), {}, {}
    for beta in betas:
        stochastic, mean = (
            estimate(_gain("attacked", mode, offset).at(beta=beta), rows, level) for mode in ("stochastic", "mean")
        )
        if stochastic is not None and mean is not None:
            gains[beta] = (stochastic, mean)
            verdicts[beta] = all_of([exceeds(stochastic, MARGIN), falls_below(mean, MARGIN)])
    if not gains:
        return Verdict.UNDECIDED, "Not measured, or training collapsed at every β."
    supported = [beta for beta, verdict in verdicts.items() if verdict is Verdict.SUPPORTED]
    shown = max(supported or gains, key=lambda beta: gains[beta][0].value - gains[beta][1].value)
    stochastic, mean = gains[shown]
    where = f"Supported at β = {', '.join(f'{beta:g}' for beta in supported)}. " if supported else ""
    return any_of(list(verdicts.values())), (
        f"{where}The modes are furthest apart at β = {shown:g}: accuracy under attack, VIB less linear, is "
        f"{stochastic} in stochastic mode and {mean} in mean mode; above and below {points(MARGIN)} at one β counts."
    )


# --- figure 6 ---


def _sample_claims(_: SamplesConfig) -> list[Claim | OtherClaim]:
    return [
        OtherClaim("The label can be predicted from the sign of x₁.", _always, "Section 3.3"),
        Claim(
            "The sign of x₂ is the label's in 90% of all points.",
            left=select("sign_of_x2"),
            op="within",
            right=RELIABILITY,
            margin=NEAR,
            about="points for which it is",
            least_seeds=1,
            place="Section 3.3",
        ),
    ]


def _always(rows: Rows) -> tuple[Verdict, str]:
    found = rows.select("sign_of_x1", {})
    if not found:
        return Verdict.UNDECIDED, "Not measured."
    (row,) = found
    right = round((row.value or 0) * row.n)
    reason = f"It is the label's for {right:,} of {row.n:,} points; one exception contradicts it."
    return (Verdict.SUPPORTED if right == row.n else Verdict.CONTRADICTED), reason


# --- pages ---


def _toy_blocks(titles: Mapping[str, str], marks: Mapping[str, Sequence[Mark]]) -> tuple[Block, ...]:
    """Accuracy over β on each set of points, and beside the closed forms.

    Args:
        titles: set of points -> title of its plot.
        marks: set -> accuracies of known rules there.
    """
    columns: dict[str, Quantity] = {}
    for name in titles:
        columns[f"{name}, measured"] = select("accuracy", points=name, mode="mean")
        columns[f"{name}, closed form"] = select("expected_accuracy", points=name)
    return (
        *(
            images.over_parameter(
                title,
                select("accuracy", points=name),
                "vib",
                "beta",
                reading="Means over seeds.",
                lines=("std_offset", "mode"),
                level={NAMES["determ"]: _linear(name)},
                marks=tuple(marks[name]),
                y_range=None,
            )
            for name, title in titles.items()
        ),
        Pivot(
            title="Measured, and by the closed form",
            reading="In mean mode every model is a linear rule, whose accuracy is a formula of its weights. R is the "
            "rate on clean points, an upper bound on I(X;Z).",
            rows=("objective", "std_offset", "beta"),
            columns={**columns, "R": select("rate")},
        ),
        _agreement,
    )


def _agreement(record: StudyRecord, _: StudyConfig) -> list[Table]:
    """How many single measurements lie outside the range of chance around their formula (99.9%)."""
    rows = record.rows(collapsed=True)
    formulas = {_key(row): row.value for row in rows.select("expected_accuracy", {})}
    tails = [_tail(row, formulas[_key(row)] or 0.0) for row in rows.select("accuracy", {"mode": "mean"})]
    if not tails:
        return []
    far = sum(tail < 0.0005 for tail in tails)
    reading = "Measurements outside the 99.9% range of a binomial around their formula; models share their points."
    columns = ("measurements", "outside", "expected by chance")
    line = (len(tails), far, f"{0.001 * len(tails):.1f}")
    return [Table("Agreement with the closed form", reading, columns, (line,))]


def _key(row: Metric) -> tuple[Coordinate | None, ...]:
    return tuple(row.coords.get(key) for key in ("objective", "beta", "std_offset", "seed", "points"))


def _tail(row: Metric, expected: float) -> float:
    right = round((row.value or 0) * row.n)
    above = float(1 - bdtr(right - 1, row.n, expected)) if right else 1.0
    return min(float(bdtr(right, row.n, expected)), above)


_SAMPLE_BLOCKS: tuple[Block, ...] = (
    Scatter(
        title="Samples",
        reading="{points:,} points. The line x₁ = 0 separates the classes; points on the wrong side of x₂ = 0 are the "
        "rare points that are figure 5's robust set.",
        x_label="x₁",
        y_label="x₂",
    ),
    Pivot(
        title="How often a feature's sign is the label's",
        reading="By the formula sign(x₁) always is, and gives ln 2 = 0.693 nats = 1 bit on the label; sign(x₂) is in "
        "90%, and gives 0.368 nats = 0.531 bits.",
        rows=(),
        columns={"sign(x₁)": select("sign_of_x1"), "sign(x₂)": select("sign_of_x2")},
    ),
)
_OPTIMUM = Mark("sign(x₁), the optimum", y=1.0)  # sign(x₂) alone would be right in none of the last two sets
STUDIES = (
    Study(
        name="closer-look/figure-5",
        title="Figure 5: a toy problem with one feature to trust",
        question="Does a bottleneck rely on the feature that is always right, or also on the one that an attacker can "
        "change?",
        config=ToyConfig,
        measure="toy_experiments:toys",
        claims=_rare_claims,
        blocks=_toy_blocks(
            {"clean": "Clean points", "rare": "Rare points alone", "shifted": "x₂ moved by 1 against the label"},
            {"clean": (_OPTIMUM, Mark("sign(x₂)", y=0.9)), "rare": (_OPTIMUM,), "shifted": (_OPTIMUM,)},
        ),
        names=NAMES,
    ),
    Study(
        name="closer-look/figure-6",
        title="Figure 6: samples of the toy problem",
        question="What does the first toy problem look like, and do its samples agree with the formulas?",
        config=SamplesConfig,
        measure="toy_experiments:samples",
        claims=_sample_claims,
        blocks=_SAMPLE_BLOCKS,
    ),
    Study(
        name="closer-look/figure-7",
        title="Figure 7: a toy problem with one robust feature",
        question="Does a bottleneck rely on the one robust feature if many weak ones together predict better?",
        config=GaussiansConfig,
        measure="toy_experiments:gaussian_toys",
        claims=_robust_claims,
        blocks=_toy_blocks(
            {"clean": "Clean points", "attacked": "Every Gaussian moved by 2η against the label"},
            {
                "clean": (Mark("Bayes", y=0.99947), Mark("x₁ alone", y=0.95)),
                "attacked": (Mark("Bayes", y=0.00576), Mark("x₁ alone", y=0.95)),
            },
        ),
        names=NAMES,
    ),
)
