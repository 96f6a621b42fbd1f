"""Binary classifiers that answer with one number per image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.audits.classifier import adopt
from isthmus.core.errors import ModelError
from isthmus.models.outputs import LogProbabilities, TwoColumns, are_probabilities, log_probabilities, sum_to_one, two

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = 0.2 + 0.6 * torch.rand(60, 1, 4, 4, generator=GENERATOR)  # no ball of 0.1 reaches the box's edge
WEIGHT = torch.randn(16, 1, generator=GENERATOR)
LEAD = (IMAGES.flatten(1) @ WEIGHT).squeeze(1) - (IMAGES.flatten(1) @ WEIGHT).median() + 0.01
LABELS = (LEAD > 0).long()


class One(nn.Module):
    """A linear classifier: z > 0 means class 1."""

    def __init__(self, shape=(-1, 1), of=lambda z: z) -> None:
        super().__init__()
        self.weight, self.shape, self.of = nn.Parameter(WEIGHT.clone()), shape, of

    def forward(self, images: Tensor) -> Tensor:
        z = images.flatten(1) @ self.weight - (IMAGES.flatten(1) @ WEIGHT).median() + 0.01
        return self.of(z.reshape(self.shape))


class Two(One):
    def forward(self, images: Tensor) -> Tensor:
        z = super().forward(images)
        return torch.cat([torch.zeros_like(z), z], 1)


DIAGNOSIS = {"name": "diagnosis", "sample": 15, "ensemble": "apgd:20"}
EPS = 0.05
CERTAIN = (LEAD.abs() > EPS * WEIGHT.abs().sum()).double().mean().item()
"""A linear model's robust accuracy in closed form: no perturbation changes z by more than ε‖w‖₁."""


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
@pytest.mark.parametrize("suite", [pytest.param("fast", marks=pytest.mark.slow), "pgd:10", "fab:10"])
def test_one_logit_is_attacked_like_the_two_that_it_means(shape, suite):
    one, as_two = (robust_accuracy(model, IMAGES, LABELS, Linf(EPS), suite) for model in (One(shape), Two()))
    assert one.accuracy == as_two.accuracy == pytest.approx(CERTAIN)
    assert torch.equal(one.broken, as_two.broken)


def test_its_minimal_norms_are_those_of_the_closed_form():
    found = minimal_norms(One(), IMAGES, LABELS, "linf", ["fab"])
    expected = (LEAD.abs() / WEIGHT.abs().sum()).double()
    within = expected < 0.15  # beyond, the box gets in the way
    torch.testing.assert_close(found.sizes[within], expected[within], rtol=0.01, atol=1e-4)


def test_a_probability_is_no_logit():
    with pytest.raises(ModelError, match="log-odds"):
        robust_accuracy(One(of=torch.sigmoid), IMAGES, LABELS, Linf(EPS), "fast")


def test_numbers_within_0_and_1_may_be_logits_where_all_labels_are_1():
    chosen = (LABELS == 1) & (LEAD < 1)
    result = robust_accuracy(One(), IMAGES[chosen], LABELS[chosen], Linf(EPS), "fgsm")
    assert result.correct.all()


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
@pytest.mark.parametrize("of", [lambda z: z, torch.sigmoid])
def test_one_number_is_adopted_as_two_classes(shape, of):
    model = One(shape, of)
    adopted = adopt(model, IMAGES)
    assert adopted.num_classes == 2
    assert isinstance(adopted.model, LogProbabilities if of is torch.sigmoid else TwoColumns)
    with torch.no_grad():
        answer = adopted.model(IMAGES)
    assert torch.equal(answer.argmax(1), LABELS)
    torch.testing.assert_close(answer.softmax(1)[:, 1], LEAD.sigmoid())


@pytest.mark.parametrize("of", [pytest.param(lambda z: z, marks=pytest.mark.slow), torch.sigmoid])
def test_an_audit_of_one_number(of):
    audit = isthmus.audit(One(of=of), IMAGES, LABELS, Linf(EPS), ["accuracy", DIAGNOSIS])
    assert audit.results["accuracy"].metrics.one("accuracy", mode="mean").value == 1
    assert audit.verdict.status == "holds"
    assert audit.verdict.corrected == pytest.approx(CERTAIN)
    tests = {f["test"]: f for f in audit.results["diagnosis"].details["modes"]["mean"]["tests"]}
    assert ("probabilities" in tests["outputs"]["reason"]) == (of is torch.sigmoid)


def test_two_logits_have_the_softmax_of_a_sigmoid():
    z = torch.linspace(-5, 5, 11)
    torch.testing.assert_close(two(z).softmax(1)[:, 1], z.sigmoid())
    assert are_probabilities(z.sigmoid())
    assert not are_probabilities(z)


class Softmax(Two):
    """The linear classifier's probabilities, of logits ``scale`` times as large."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return (self.scale * super().forward(images)).softmax(1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_logarithms_of_probabilities_have_their_largest_entries(dtype, classes):
    """Also where the largest two are neighbouring numbers, which logarithms in float32 often confuse, and ties."""
    p = (torch.randn(3000, classes, generator=GENERATOR) / 10).softmax(1).to(dtype)
    first = p.argmax(1, keepdim=True)
    largest = p.gather(1, first)
    neighbour = torch.nextafter(largest, torch.full_like(largest, torch.inf))
    for given in (p, p.scatter(1, (first + 1) % classes, neighbour), p.scatter(1, (first - 1) % classes, largest)):
        z = log_probabilities(given).float()
        assert torch.equal(z.argmax(1), given.argmax(1))
        assert torch.equal(z == z.amax(1, keepdim=True), given == given.amax(1, keepdim=True))
    torch.testing.assert_close(
        log_probabilities(p).softmax(1), p.to(z.dtype if dtype == torch.float16 else dtype), rtol=2e-3, atol=1e-6
    )


def test_logarithms_of_zeros_are_finite_and_other_rows_stay_as_they_are():
    given = torch.tensor([[0.0, 1.0], [0.0, 0.0], [-3.0, -2.0], [torch.nan, 1.0]])
    z = log_probabilities(given)
    assert torch.equal(z[:3].argmax(1), given[:3].argmax(1))
    assert z[:3].isfinite().all()
    assert torch.equal(z[2], given[2])
    assert not z[3].isfinite().all()
    assert torch.equal(log_probabilities(torch.tensor([[0, 1]])), z[:1])


def test_rows_of_probabilities_are_recognised():
    p = torch.randn(64, 1000).softmax(1)
    assert all(sum_to_one(p.to(dtype)) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64))
    assert sum_to_one(torch.eye(5, dtype=torch.int64))
    assert not any(sum_to_one(other) for other in (p.log(), 2 * p, torch.rand(8, 3), p[0], (p, p), p[:, :1], p - 1e-3))


@pytest.mark.parametrize("scale", [pytest.param(1, marks=pytest.mark.slow), 30])
def test_probabilities_are_attacked_like_the_logits_that_they_come_from(scale):
    with pytest.warns(UserWarning, match="returns probabilities"):
        found = robust_accuracy(Softmax(scale), IMAGES, LABELS, Linf(EPS), "fast")
    assert found.accuracy == pytest.approx(CERTAIN)
    with pytest.warns(UserWarning, match="returns probabilities"):
        assert isthmus.verify(found, Softmax(scale)).agrees


def test_an_audit_of_probabilities_has_the_numbers_of_their_logits():
    checks = ["accuracy", "calibration", {"name": "ood_detection", "outs": ["uniform_noise"]}]
    one, other = (isthmus.audit(model, IMAGES, LABELS, Linf(EPS), checks) for model in (Softmax(), Two()))
    for check in ("accuracy", "calibration"):
        for mine, expected in zip(one.results[check].metrics, other.results[check].metrics, strict=True):
            assert mine.name == expected.name
            assert mine.value == pytest.approx(expected.value, abs=1e-5)
    entropy = {"score": "entropy", "mode": "mean", "data": "uniform_noise"}
    mine, expected = (each.results["ood_detection"].metrics.one("auroc", **entropy) for each in (one, other))
    assert mine.value == pytest.approx(expected.value, abs=1e-5)
    assert one.results["ood_detection"].details["left_out"].keys() >= {"energy"}


class Masked(nn.Module):
    """A linear classifier of four classes, of which the first two are never given."""

    def __init__(self, never: float) -> None:
        super().__init__()
        self.weight, self.never = nn.Parameter(WEIGHT.clone()), never

    def forward(self, images: Tensor) -> Tensor:
        z = images.flatten(1) @ self.weight - (IMAGES.flatten(1) @ WEIGHT).median() + 0.01
        never = torch.full_like(z, self.never)
        return torch.cat([never, never, torch.zeros_like(z), z], 1)


@pytest.mark.parametrize("never", [pytest.param(-1e9, marks=pytest.mark.slow), -torch.inf])
@pytest.mark.parametrize(
    "suite",
    [
        "fast",
        pytest.param("standard", marks=pytest.mark.slow),
        "multitargeted:40",
        "pgd:10",
        pytest.param("cw:400", marks=pytest.mark.slow),
    ],
)
def test_classes_that_are_never_given_hide_nothing(never, suite):
    threat = isthmus.L2(EPS) if suite == "cw:400" else Linf(EPS)
    norm = WEIGHT.norm() if suite == "cw:400" else WEIGHT.abs().sum()
    certain = (LEAD.abs() > EPS * norm).double().mean().item()
    result = robust_accuracy(Masked(never), IMAGES, LABELS + 2, threat, suite)
    assert not result.invalid.any()
    assert result.accuracy == pytest.approx(certain, abs=0.02)
    assert isthmus.verify(result, Masked(never)).agrees


@pytest.mark.parametrize("threat", [Linf(EPS), isthmus.L2(EPS), isthmus.L1(EPS)])
def test_classes_that_are_never_given_set_nothing_aside(threat):
    suite = [{"name": "fab", "steps": 20, "targets": 3}, {"name": "apgd", "loss": "dlr", "targets": 3}, "square:50"]
    result = robust_accuracy(Masked(-torch.inf), IMAGES, LABELS + 2, threat, suite)
    assert not result.invalid.any()


def test_an_audit_of_classes_that_are_never_given():
    audit = isthmus.audit(Masked(-torch.inf), IMAGES, LABELS + 2, Linf(EPS), ["accuracy", "calibration"])
    assert audit.results["accuracy"].metrics.one("accuracy", mode="mean").value == 1
    assert audit.results["calibration"].status != "error"


def test_a_random_model_with_a_class_that_is_never_given_is_random():
    class Random(Masked):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images + 0.05 * torch.randn_like(images))

    assert robust_accuracy(Random(-1e9), IMAGES, LABELS + 2, Linf(EPS), "pgd:2").random
    assert adopt(Random(-1e9), IMAGES).draws > 1


@pytest.mark.parametrize("constant", [1e6, 1e7])
def test_a_constant_that_eats_the_last_bits_hides_little(constant):
    """float32 has steps of 1/16 at 1e6 and of 1 at 1e7: what is left is what a rounded model keeps."""
    scale = 40 if constant == 1e7 else 4
    model = One(of=lambda z: scale * z)

    class Shifted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return two(model(images)) + constant

    step = 1.0 if constant == 1e7 else 1 / 16
    result = robust_accuracy(Shifted(), IMAGES, LABELS, Linf(EPS), ["square:300", "pgd:20"])
    shaky = (LEAD.abs() - EPS * WEIGHT.abs().sum()).abs() < 1.5 * step / scale
    certain = LEAD.abs() > EPS * WEIGHT.abs().sum()
    assert (result.robust[~shaky] == certain[~shaky]).double().mean() > 0.9
    assert isthmus.verify(result, Shifted()).agrees


class Tied(Two):
    """Logits of three classes, two of them equal where neither leads by 0.3; their gradient is as without that."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        tied = torch.where((logits[:, 1:] - logits[:, :1]).abs() < 0.3, logits.mean(1, keepdim=True), logits)
        third = torch.full_like(tied[:, :1], -5)
        return torch.cat([tied.detach() + (logits - logits.detach()), third], 1)


def test_argmax_decides_a_tie_under_attack_as_on_a_clean_image():
    """Argmax makes class 0 of every tie: robust is what no move in the ball brings across z = 0.3."""
    most = 0.02 * float(WEIGHT.abs().sum())
    labels = (LEAD >= 0.3).long()
    robust = torch.where(labels == 1, LEAD - most >= 0.3, LEAD + most < 0.3)
    result = robust_accuracy(Tied(), IMAGES, labels, Linf(0.02), ["pgd:20"])
    assert result.clean_accuracy == 1
    assert 0 < robust.double().mean() < 1
    assert result.accuracy == pytest.approx(robust.double().mean().item())
