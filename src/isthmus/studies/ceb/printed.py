"""Numbers that the CEB papers print, as plain data: what our measurements stand beside.

"CEB" is Fischer & Alemi, "CEB Improves Model Robustness" (the ICLR 2020 submission), "Entropy" is Fischer, "The
Conditional Entropy Bottleneck" (Entropy 22(9), 2020). Accuracies, errors and mCEs are fractions (a printed 65.6% is
0.656), exact to the printed digit; ``None`` is what the papers do not say. The tables of ImageNet are of errors, those
of CIFAR-10 of accuracies, as printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from isthmus.metrics.corruption import CORRUPTIONS
from isthmus.studies.ceb.printed_tables import ROWS, TABLE_1, TABLE_2, Table


@dataclass(frozen=True)
class ImageNetModel:
    """A column of table 1 or 2: errors, as fractions; the bottleneck models are those of the best clean accuracy.

    Attributes:
        name: the column's head, with "-aa", which means *without* AutoAugment there, written out.
        depth: of the ResNet, 50 or 152.
        width: 2 where every layer is twice as wide.
        rho: of a CEB model; None is the deterministic network of the same architecture.
        mce: relative to AlexNet.
        average: mean error over corruptions and severities.
        corruptions: mean error over the five severities, by the published name of the corruption.
        imagenet_a: the papers do not say whether predictions were restricted to ImageNet-A's 200 classes.
        pgd_l2, pgd_linf: error under random-target PGD, ε = 16, 20 steps of 2, on the scale 0 to 255.
        source: paper and table.
    """

    name: str
    depth: int
    width: int
    autoaugment: bool
    rho: float | None
    clean: float
    mce: float
    average: float
    corruptions: Mapping[str, float]
    imagenet_a: float
    pgd_l2: float
    pgd_linf: float
    source: str


@dataclass(frozen=True)
class CifarModel:
    """What is printed of one model (or family) on CIFAR-10: accuracies, as fractions.

    Attributes:
        net: Wide ResNet, depth × width.
        rho: of a CEB model; None for others.
        batch_norm: None where the paper does not say.
        linf: under PGD ℓ∞, ε = 8/255, 20 steps.
        l2: under the ℓ2 attack of figure 2, which was chosen to be about as hard for Madry's network.
        cifar10_1: on the new test set; the version is not said.
        mce: on CIFAR-10-C, relative to the baseline of Yin et al. 2019, whose errors are not printed.
    """

    name: str
    net: str
    rho: float | None
    batch_norm: bool | None
    source: str
    clean: float
    linf: float | None = None
    l2: float | None = None
    cifar10_1: float | None = None
    mce: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Statement:
    """A sentence of a paper about a figure whose values are not printed, in our words; ``value`` where it has one."""

    text: str
    source: str
    value: float | None = None
    unit: str = ""


def _columns(depth: int, table: Table, source: str) -> tuple[ImageNetModel, ...]:
    return tuple(_column(depth, number, cells, source) for number, cells in enumerate(zip(*table, strict=True)))


def _column(depth: int, number: int, cells: tuple[float | None, ...], source: str) -> ImageNetModel:
    rho, *percents = cells
    # rounded, so that 65.6 becomes the float nearest to 0.656
    printed = {name: round(value / 100, 4) for name, value in zip(ROWS[1:], percents, strict=True) if value is not None}
    variant = number // 2
    return ImageNetModel(
        name=f"{'CEB-' if rho is not None else ''}{depth}{('x2', '', ' without AutoAugment')[variant]}",
        depth=depth,
        width=2 if variant == 0 else 1,
        autoaugment=variant != 2,
        rho=rho,
        corruptions=MappingProxyType({name: printed.pop(name) for name in CORRUPTIONS}),
        source=source,
        **printed,
    )


RESNET_50 = _columns(50, TABLE_1, "CEB, table 1")
RESNET_152 = _columns(152, TABLE_2, "CEB, table 2")
IMAGENET = {model.name: model for model in (*RESNET_50, *RESNET_152)}
"""All twelve columns by name: "CEB-50x2", "50x2", "CEB-50", "50", "CEB-50 without AutoAugment", …, "152 without …"."""

PGD_TOP_1_WITHOUT_AUTOAUGMENT = {"152": 0.0009, "CEB-152, ρ = 1": 0.1709}
"""CEB, §3.3: accuracy (not error) of ResNet-152 without AutoAugment under the PGD of the tables; which norm is not
said. ρ = 1 is not the model of table 2."""

DETERMINISTIC_28X10 = CifarModel("Det.", "28x10", None, False, "CEB, figure 2", clean=0.944, linf=0.08, l2=0.66)
DETERMINISTIC_28X10_BATCH_NORM = CifarModel("Det. BN", "28x10", None, True, "CEB, §3.2", clean=0.973, linf=0.0, l2=0.73)
MADRY = CifarModel(
    "Madry",
    "28x10",
    None,
    None,
    "CEB, figure 2 (clean, ℓ2); Madry et al. 2018, table 2 (ℓ∞, PGD of 20 steps)",
    clean=0.873,
    linf=0.458,
    l2=0.457,
    note="The CEB paper does not print the ℓ∞ accuracy. 45.7% is its ℓ2 attack; the two are not one number rounded.",
)
CEB_62X7 = CifarModel(
    "CEB0",
    "62x7",
    0.0,
    True,
    "CEB, §3.2 and figure 3; Entropy, §3.1.6",
    clean=0.9751,
    cifar10_1=0.936,
    mce=0.52,
    note="The most accurate model on the test set of those trained at this ρ.",
)
CEB_62X7_RHO_5 = CifarModel(
    "CEB5",
    "62x7",
    5.0,
    True,
    "CEB, §3.2 and figure 3",
    clean=0.9705,
    cifar10_1=0.919,
    mce=0.612,
    note="As CEB0. Entropy, §3.1.6, prints 97.06% for CEB5, and says it was trained with bidirectional CatGen.",
)
BIDIRECTIONAL_62X7_RHO_5 = CifarModel(
    "CEB5", "62x7", 5.0, True, "Entropy, §3.1.6", clean=0.9706, cifar10_1=0.919, note="The best of three runs."
)
"""What Entropy prints of CEB5, trained with bidirectional CatGen. Of CEB0 both papers print the same numbers."""
CIFAR = {
    model.name: model
    for model in (DETERMINISTIC_28X10, DETERMINISTIC_28X10_BATCH_NORM, MADRY, CEB_62X7, CEB_62X7_RHO_5)
}
"""The models of CIFAR-10 by name: "Det.", "Det. BN", "Madry", "CEB0", "CEB5"."""

CEB_28X10_CLEAN = (0.939, 0.951)
"""CEB, figure 2: least and greatest accuracy of the 28x10 models with ρ from 1 to 5, "Det." among them."""
CEB_28X10_L2_ABOVE = 0.80
"""CEB, §3.2: the ℓ2 accuracy that the 28x10 CEB models exceed."""
CEB_28X10_BATCH_NORM_LINF_BELOW = 0.10
"""CEB, §3.2: with batch normalisation 28x10 CEB models "rarely exceeded" this ℓ∞ accuracy."""
CEB_28X10_TRAINS_FROM = 1.0
"""CEB, §3.2: of 25 models, ρ = −1, −0.75, …, 5, only those with at least this ρ left chance."""

FASHION = (
    Statement("CEB and VIB are more accurate than the deterministic network.", "CEB, figure 1; Entropy, figure 4"),
    Statement("CEB is more accurate than VIB at every ρ.", "CEB, figure 1; Entropy, figure 4"),
    Statement("CEB is more robust to both targeted attacks than VIB at every ρ.", "CEB, figure 1; Entropy, figure 4"),
    Statement("CEB is more robust than the deterministic network at all ρ but 5.", "Entropy, §3.1.2", 5.0, "ρ"),
    Statement("As ρ falls, robustness to both attacks rises, of CEB and of VIB.", "CEB, §3.1; Entropy, §3.1.2"),
    Statement(
        "CEB and VIB have nearly the same greatest rate bound R_X at each ρ.", "CEB, figure 1; Entropy, figure 4"
    ),
    Statement("At ρ = 0 the greatest R_X is ln 10, printed 2.3.", "CEB, §3.1; Entropy, §3.1.1", 2.3, "nats"),
    Statement("From ρ = 0 to −1 robustness gains little and accuracy loses much.", "CEB, §3.1; Entropy, §3.1.2"),
)
"""What is said of the figure on Fashion-MNIST: 7×2 Wide ResNets, ρ = −1, 0, …, 5, PGD targeted at trousers. Its values
are not printed."""

CIFAR_28X10_SAID = (
    Statement("As ρ falls, accuracy under both attacks rises.", "CEB, figure 2"),
    Statement("CEB stands both attacks better than the deterministic network at every ρ.", "CEB, figure 2"),
    Statement("Many CEB models stand ℓ∞ better than Madry, which was trained on that attack.", "CEB, figure 2"),
    Statement("All CEB models with ρ ≤ 4 stand both attacks better than Madry at most ε.", "CEB, figure 3", 4.0, "ρ"),
    Statement("CEB and the deterministic network are about equally accurate.", "CEB, figure 2"),
    Statement("Batch normalisation makes small networks more accurate and far less robust to ℓ∞.", "CEB, §3.2"),
    Statement("Even with it, lower ρ gives more robustness.", "CEB, §3.2"),
    Statement("At large ℓ2 radii the deterministic network overtakes CEB5.", "CEB, figure 3"),
)
"""What is said of the 28x10 networks on CIFAR-10. Figure 2 is called targeted in the text, figure 3 untargeted."""
CIFAR_62X7_SAID = (
    Statement("CEB0 stands ℓ2 and ℓ∞ better than Madry at almost all ε.", "CEB, §3.2; Entropy, §3.1.6"),
    Statement("CEB0 stands transfers from CEB5 and from Madry better than the attack on itself.", "CEB, figure 3"),
    Statement("28x10 and 62x7 CEB5 are about equally robust.", "CEB, figure 3"),
    Statement("CEB0 generalises to CIFAR-10.1 better than CEB5: a gap of 3.9 points.", "CEB, §3.2", 0.039, "fraction"),
    Statement("CEB0 errs less under common corruptions than CEB5.", "CEB, §3.2"),
)
"""What is said of the 62x7 networks on CIFAR-10."""
IMAGENET_SAID = (
    Statement("AutoAugment and width lower the errors on ImageNet-C and -A, and CEB lowers them further.", "CEB, §3.3"),
    Statement("No ResNet-50 has more than 1% accuracy under PGD.", "CEB, §3.3", 0.01, "fraction"),
    Statement("ResNet-152 CEB models stand PGD far better than their baselines.", "CEB, §3.3"),
    Statement("Without AutoAugment ResNet-152 stands PGD better; only the wide ones exceed that.", "CEB, §3.3"),
    Statement("Deterministic 152 has a lower mCE than 152x2 and the same clean error.", "CEB, table 2"),
)
"""What is said of the networks on ImageNet. ρ is that of the best clean accuracy, of 1 to 10; the lower where equal."""
