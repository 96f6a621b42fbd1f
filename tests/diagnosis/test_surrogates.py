"""Registry of surrogate gradients: complete, and with the values and dtypes of torch."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isthmus.diagnosis.bpda.model import BPDAModel
from isthmus.diagnosis.bpda.relaxed import normalized_name
from isthmus.diagnosis.bpda.surrogates import EXEMPT, KINDS, SURROGATES
from tests.diagnosis.differentiable import probed
from tests.diagnosis.unusual_models import FunctionModel

I = torch.tensor([[0, 1, 2, 3]] * 3)  # noqa: E741
B = torch.tensor([0.2, 0.4, 0.6, 0.8])


def bytes_of(x):
    return (255 * x).byte()


def into(function, x, *args):
    """Call with ``out=``."""
    made = torch.empty(0, dtype=function(x.detach(), *args).dtype)
    function(x, *args, out=made)
    return made


def changed(name, x, *args):
    """Call a method in place."""
    y = 1 * x
    getattr(y, name)(*args)
    return y


def with_item(target, index, value):
    target[index] = value
    return target


def reinterpreted(x):
    return (x.contiguous().view(torch.int32) & -(1 << 20)).view(torch.float32)


CALLS = {
    "round": [
        lambda x: (7 * x).round(),
        lambda x: torch.special.round(7 * x),
        lambda x: torch.round(x, decimals=1),
        lambda x: into(torch.round, 7 * x),
        lambda x: changed("round_", 7 * x),
        lambda x: torch.ops.aten.round(7 * x),
    ],
    "floor": [lambda x: (7 * x).floor(), lambda x: changed("floor_", 7 * x)],
    "ceil": [lambda x: (7 * x).ceil()],
    "trunc": [lambda x: (7 * x).trunc()],
    "fix": [lambda x: (7 * x).fix()],
    "clamp": [lambda x: x.clamp(0.4, 0.41), lambda x: changed("clamp_", x, 0.4, 0.41)],
    "clip": [lambda x: x.clip(0.4, 0.41)],
    "clamp_min": [lambda x: x.clamp_min(0.99)],
    "clamp_max": [lambda x: x.clamp_max(0.01)],
    "hardtanh": [lambda x: nn.functional.hardtanh(x, 0.4, 0.41)],
    "floordiv": [lambda x: x // 0.1, lambda x: 2 // (x + 0.1), lambda x: bytes_of(x) // 17],
    "floor_divide": [lambda x: torch.floor_divide(x, 0.1), lambda x: changed("floor_divide_", x, 0.1)],
    "div": [lambda x: torch.div(x, 0.1, rounding_mode="floor"), lambda x: x.div(0.1, rounding_mode="trunc")],
    "divide": [lambda x: torch.divide(x, 0.1, rounding_mode="floor")],
    "quantize_per_tensor": [lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8).dequantize()],
    "quantize_per_channel": [
        lambda x: torch.quantize_per_channel(x, torch.full((3,), 0.1), torch.zeros(3), 0, torch.quint8).dequantize()
    ],
    "quantize_per_tensor_dynamic": [lambda x: torch.quantize_per_tensor_dynamic(x, torch.quint8, False).dequantize()],
    "dequantize": [lambda x: torch.dequantize(torch.quantize_per_tensor(x, 0.1, 0, torch.quint8))],
    "frexp": [lambda x: torch.frexp(x).exponent],
    "gt": [
        lambda x: x > 0.5,
        lambda x: torch.tensor(0.5) < x,
        lambda x: changed("gt_", x, 0.5),
        lambda x: into(torch.gt, x, 0.5),
    ],
    "ge": [lambda x: x >= 0.5, lambda x: torch.ops.aten.ge(x, 0.5)],
    "lt": [lambda x: x < 0.5, lambda x: bytes_of(x) < 128],
    "le": [lambda x: x <= 0.5],
    "greater": [lambda x: x.greater(0.5)],
    "greater_equal": [lambda x: x.greater_equal(0.5)],
    "less": [lambda x: x.less(0.5)],
    "less_equal": [lambda x: x.less_equal(0.5)],
    "eq": [lambda x: x == 0.5, lambda x: x.eq(0.5), lambda x: bytes_of(x) == 100],
    "ne": [lambda x: x != 0.5],
    "not_equal": [lambda x: x.not_equal(0.5)],
    "isclose": [lambda x: torch.isclose(x, torch.tensor(0.5), atol=0.1)],
    "isin": [lambda x: torch.isin(bytes_of(x), torch.arange(100, dtype=torch.uint8))],
    "sign": [lambda x: (x - 0.5).sign(), lambda x: changed("sign_", x - 0.5)],
    "sgn": [lambda x: (x - 0.5).sgn()],
    "signbit": [lambda x: (x - 0.5).signbit()],
    "heaviside": [lambda x: torch.heaviside(x - 0.5, torch.tensor(0.5))],
    "copysign": [lambda x: torch.copysign(torch.ones(3, 4), x - 0.5)],
    "angle": [lambda x: torch.angle(x - 0.5)],
    "logical_and": [lambda x: torch.logical_and(x > 0.3, x < 0.7), lambda x: torch.logical_and(x, x > 0.5)],
    "logical_or": [lambda x: torch.logical_or(x < 0.3, x > 0.7)],
    "logical_xor": [lambda x: torch.logical_xor(x < 0.7, x > 0.3)],
    "logical_not": [lambda x: torch.logical_not(x > 0.5)],
    "all": [lambda x: (x > 0.2).all(1), lambda x: torch.all(x > 0.2)],
    "any": [lambda x: (x > 0.8).any(dim=1)],
    "where": [lambda x: torch.where(x > 0.5, 1.0, torch.zeros(3, 4))],
    "and": [lambda x: (x > 0.3) & (x < 0.7), lambda x: bytes_of(x) & 0xF0, lambda x: 0xF0 & bytes_of(x)],
    "or": [lambda x: (x < 0.3) | (x > 0.7), lambda x: changed("__ior__", bytes_of(x), 0x0F)],
    "xor": [lambda x: (x < 0.7) ^ (x > 0.3), lambda x: bytes_of(x) ^ 3],
    "invert": [lambda x: ~(x > 0.5), lambda x: ~bytes_of(x).int()],
    "bitwise_and": [lambda x: torch.bitwise_and(bytes_of(x), torch.tensor(0xF0, dtype=torch.uint8))],
    "bitwise_or": [lambda x: bytes_of(x).bitwise_or(15)],
    "bitwise_xor": [lambda x: bytes_of(x).bitwise_xor(15)],
    "bitwise_not": [lambda x: torch.bitwise_not(bytes_of(x).short())],
    "lshift": [lambda x: bytes_of(x).int() << 2],
    "rshift": [lambda x: bytes_of(x) >> 4, lambda x: changed("__irshift__", bytes_of(x), 4)],
    "bitwise_left_shift": [lambda x: torch.bitwise_left_shift(bytes_of(x).int(), 2)],
    "bitwise_right_shift": [lambda x: torch.bitwise_right_shift(bytes_of(x), 4)],
    "argmax": [lambda x: x.argmax(1), lambda x: x.argmax(), lambda x: x.argmax(1, keepdim=True)],
    "argmin": [lambda x: x.argmin(dim=1)],
    "argsort": [lambda x: x.argsort(), lambda x: x.argsort(1).argsort(1), lambda x: x.argsort(1, True).argsort(1)],
    "sort": [lambda x: x.sort(1).indices, lambda x: torch.sort(x, dim=1, descending=True)[1][:, 0]],
    "topk": [lambda x: x.topk(2).indices, lambda x: torch.topk(x, 2, 1, False)[1]],
    "kthvalue": [lambda x: x.kthvalue(2).indices, lambda x: x.kthvalue(2, dim=1, keepdim=True).indices],
    "median": [lambda x: x.median(1).indices],
    "nanmedian": [lambda x: x.nanmedian(1).indices],
    "mode": [lambda x: x.mode(1).indices],
    "max": [lambda x: x.max(1).indices, lambda x: x == x.max(1, keepdim=True).values],
    "min": [lambda x: x.min(1).indices, lambda x: x <= x.min(1, keepdim=True)[0]],
    "cummax": [lambda x: x.cummax(1).indices],
    "cummin": [lambda x: x.cummin(1).indices],
    "amax": [lambda x: x >= x.amax(1, keepdim=True)],
    "amin": [lambda x: x == x.amin(1, True)],
    "getitem": [lambda x: torch.arange(16.0)[(16 * x).long()], lambda x: torch.eye(4)[x.argmin(1)]],
    "setitem": [
        lambda x: with_item(torch.zeros(3, 4), (torch.arange(3), x.argmin(1)), 1.0),
        lambda x: with_item(torch.zeros(3, 4), x > 0.5, 1.0),
        lambda x: with_item(torch.zeros(3, 4, dtype=torch.uint8), (slice(None), 0), bytes_of(x)[:, 0]),
    ],
    "take": [lambda x: torch.take(torch.arange(16.0), (16 * x).long())],
    "take_along_dim": [lambda x: torch.take_along_dim(torch.arange(4.0).expand(3, 4), x.argsort(1), 1)],
    "embedding": [
        lambda x: nn.functional.embedding((16 * x).long(), torch.arange(32.0).view(16, 2)),
        lambda x: torch.embedding(torch.arange(32.0).view(16, 2), (16 * x).long()),
    ],
    "one_hot": [
        lambda x: nn.functional.one_hot(x.argmin(1), 4),
        lambda x: nn.functional.one_hot((16 * x).long(), 16),
    ],
    "index_select": [lambda x: torch.arange(16.0).index_select(0, (16 * x[0]).long())],
    "gather": [lambda x: torch.arange(4.0).expand(3, 4).gather(1, x.argsort(1))],
    "scatter": [
        lambda x: torch.zeros(3, 4).scatter(1, x.topk(2).indices, 1.0),
        lambda x: torch.zeros(3, 4).scatter_(1, x.sort(1).indices, torch.arange(4.0).expand(3, 4)),
    ],
    "masked_fill": [lambda x: torch.zeros(3, 4).masked_fill(x > 0.5, 1.0)],
    "bucketize": [lambda x: torch.bucketize(x, B), lambda x: torch.bucketize(x, torch.tensor([0.5]), right=True)],
    "searchsorted": [
        lambda x: torch.searchsorted(B, x),
        lambda x: torch.searchsorted(B.expand(3, 4).contiguous(), x, right=True),
        lambda x: torch.searchsorted(x.sort(1).values, x),
    ],
    "histc": [lambda x: torch.histc(x, 4, 0, 1), lambda x: x.histc(bins=4)],
    "histogram": [lambda x: torch.histogram(x, 4, range=(0.0, 1.0)).hist],
    "bincount": [lambda x: torch.bincount((4 * x).long().flatten(), minlength=4)],
    "count_nonzero": [lambda x: torch.count_nonzero(x > 0.5, dim=1)],
    "unique": [lambda x: torch.unique((4 * x).round()), lambda x: x.unique(return_inverse=True)[1]],
    "unique_consecutive": [lambda x: torch.unique_consecutive(x.flatten().sort().values)],
    "bernoulli": [lambda x: torch.bernoulli(x), lambda x: x.bernoulli()],
    "poisson": [lambda x: torch.poisson(9 * x)],
    "binomial": [lambda x: torch.binomial(torch.full((3, 4), 9.0), x)],
    "multinomial": [lambda x: torch.multinomial(x, 2)],
    "apply": [lambda x: (7 * x.detach()).apply_(round)],
    "map": [lambda x: (7 * x.detach()).map_(torch.ones(3, 4), lambda a, b: round(a * b))],
    "map2": [lambda x: (7 * x.detach()).map2_(torch.ones(3, 4), torch.ones(3, 4), lambda a, b, c: round(a * b * c))],
    "native_channel_shuffle": [lambda x: torch.nn.functional.native_channel_shuffle(x.view(1, 4, 3, 1), 2)],
    "nextafter": [lambda x: torch.nextafter(x, torch.ones(()))],
    "zeta": [lambda x: torch.special.zeta(x + 1.5, torch.ones(3, 4))],
    "igamma": [lambda x: torch.igamma(x, torch.ones(3, 4))],
    "igammac": [lambda x: torch.igammac(x, torch.ones(3, 4))],
    "gammainc": [lambda x: torch.special.gammainc(x, torch.ones(3, 4))],
    "gammaincc": [lambda x: torch.special.gammaincc(x, torch.ones(3, 4))],
    "byte and its like": [
        *(lambda x, name=name: getattr(90 * x, name)() for name in ("byte", "char", "short", "int", "long")),
        lambda x: (2 * x).int().bool(),
        *(lambda x, dtype=dtype: (90 * x).to(dtype) for dtype in (torch.uint8, torch.int64, torch.int16)),
        lambda x: (90 * x).to(dtype=torch.uint8).long().short(),
        lambda x: (90 * x).type(torch.uint8),
        lambda x: (90 * x).type("torch.LongTensor"),
        lambda x: (90 * x).type_as(torch.zeros(1, dtype=torch.uint8)),
        lambda x: (90 * x).to(torch.zeros(1, dtype=torch.int32)),
        lambda x: torch.tensor((90 * x).byte()),
        lambda x: torch.as_tensor(90 * x, dtype=torch.uint8),
        lambda x: reinterpreted(x),
    ],
    "integers used as numbers": [
        lambda x: bytes_of(x).int() + 1,
        lambda x: 1 - bytes_of(x).int() * 2,
        lambda x: bytes_of(x).permute(1, 0).reshape(-1).float().view(4, 3),
        lambda x: torch.stack([bytes_of(x), bytes_of(x)]),
        lambda x: bytes_of(x).float().div(255),
        lambda x: bytes_of(x) / 255,
        lambda x: (x > 0.5).sum(1),
        lambda x: bytes_of(x).sum(),
        lambda x: changed("add_", bytes_of(x), 1),
        lambda x: torch.ones(3, 4) * (x > 0.5),
        lambda x: (x > 0.5).double().mean(),
        lambda x: bytes_of(x).unbind(1)[2],
        lambda x: x.argsort(1)[:, :2].flip(1).float(),
        lambda x: torch.from_numpy(bytes_of(x).numpy()),
    ],
}
CALLS |= {
    name: [lambda x, name=name: getattr(torch.special, name)(x + 1.2)]
    for name in SURROGATES
    if "bessel" in name or "airy" in name
}
CALLS |= {
    name: [lambda x, name=name: getattr(torch.special, name)(x, torch.full((3, 4), 2.0))]
    for name in SURROGATES
    if "polynomial" in name
}


def numbers() -> Tensor:
    """Twelve distinct numbers, none of them an integer or a threshold."""
    return (torch.randperm(12, generator=torch.Generator().manual_seed(0)) / 12 + 0.037).view(3, 4)


def test_every_function_of_the_registry_has_a_call():
    assert set(SURROGATES) - set(KINDS["remainders"]) <= set(CALLS)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "at"), [(name, at) for name, calls in sorted(CALLS.items()) for at in range(len(calls))]
)
def test_values_and_dtypes_are_those_of_torch_and_there_is_a_gradient(name, at):
    function, x = CALLS[name][at], numbers()
    torch.manual_seed(0)
    expected = function(x.clone())
    torch.manual_seed(0)
    leaf, seen = x.clone().requires_grad_(), []
    soft = BPDAModel(FunctionModel(lambda x: seen.append(function(x)) or seen[0]))(leaf)
    assert seen[0].dtype == expected.dtype
    assert torch.equal(seen[0].detach(), expected)
    assert soft.is_floating_point()
    assert torch.equal(soft.detach().double(), expected.double())
    weights = torch.arange(1.0, soft.numel() + 1).view(soft.shape)
    (gradient,) = torch.autograd.grad((weights * soft).sum(), leaf)
    assert gradient.isfinite().all()
    assert gradient.any()


RISING = {
    "rank": lambda z: z.argsort(1).argsort(1),
    "rank, by a sort": lambda z: z.sort(1, descending=True).indices.argsort(1).neg(),
    "rank, scattered": lambda z: torch.zeros_like(z).scatter_(1, z.sort(1).indices, torch.arange(4.0).expand_as(z)),
    "rank, searched": CALLS["searchsorted"][2],
    "bucket": lambda z: torch.bucketize(z, torch.arange(-200.0, 200.0)),
    "label of the least": lambda z: nn.functional.one_hot((-z).argmin(1), 4),
    "byte": lambda z: (z + 100).byte(),
    "heaviside": lambda z: torch.heaviside(z, torch.tensor(0.5)),
    "votes": lambda z: (z[:, :, None] > z[:, None]).sum(2),
    "above the second": lambda z: (z >= z.kthvalue(3, dim=1, keepdim=True).values).long(),
    "table": lambda z: torch.arange(400.0)[(z + 200).long()],
    "distinct": lambda z: z.unique(return_inverse=True)[1],
}


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("name", RISING)
def test_a_function_that_rises_with_a_logit_has_a_positive_slope_on_any_scale(name, scale):
    """Logits may be far apart, so a surrogate must not vanish in float32."""
    z = (scale * torch.randn(20, 4, generator=torch.Generator().manual_seed(1))).requires_grad_()
    if name == "distinct":
        z = z[:1]
    found = BPDAModel(FunctionModel(lambda z: RISING[name](z).float() * 1.0))(z)
    for column in range(4):
        (gradient,) = torch.autograd.grad(found[:, column].sum(), z, retain_graph=True)
        largest = gradient[:, column]
        assert (largest >= 0).all()
        assert (largest > 1e-6).float().mean() >= (0.5 if name in ("label of the least", "above the second") else 0.9)


def test_a_lookup_in_a_falling_table_has_a_negative_slope():
    x = torch.rand(2, 5).requires_grad_()
    found = BPDAModel(FunctionModel(lambda x: torch.arange(16.0, 0, -1)[(16 * x).long()]))(x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, torch.full((2, 5), -16.0))


def test_the_index_of_the_nearest_entry_has_the_gradient_of_the_expected_entry():
    """A vector quantiser: Σ_j softmax_j(−(d_j − min d)/τ)·entry_j, in closed form."""
    entries = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    x = torch.rand(6, 2).requires_grad_()
    found = BPDAModel(FunctionModel(lambda x: entries[torch.cdist(x, entries).argmin(1)]))(x)
    assert torch.equal(found, entries[torch.cdist(x, entries).argmin(1)])
    (gradient,) = torch.autograd.grad(found.sum(), x)
    farther = torch.cdist(x, entries) - torch.cdist(x, entries).amin(1, keepdim=True)
    weights = (-farther / (farther.detach().mean(1, keepdim=True) / 2)).softmax(1)
    (expected,) = torch.autograd.grad((weights @ entries).sum(), x)
    torch.testing.assert_close(gradient, expected)


class Enlarged(nn.Module):
    """Outside torch: enlarges the images and raises pixels to the power 1.5."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = np.asarray(images.detach().tolist(), dtype=np.float32)
        return torch.tensor((pixels.repeat(2, 2).repeat(2, 3) ** 1.5).tolist())


def test_an_unknown_module_that_changes_the_shape_has_an_estimated_gradient():
    torch.manual_seed(0)
    images = torch.rand(6, 1, 6, 6)
    differentiable = nn.Sequential(
        nn.Upsample(scale_factor=2), FunctionModel(lambda x: x**1.5), nn.Flatten(), nn.Linear(144, 4)
    )
    hidden = nn.Sequential(Enlarged(), nn.Flatten(), differentiable[3])
    assert not hidden(images.requires_grad_()).detach().requires_grad
    leaf = images.detach().requires_grad_()
    (expected,) = torch.autograd.grad(differentiable(leaf)[:, 0].sum(), leaf)
    (found,) = torch.autograd.grad(BPDAModel(hidden)(leaf)[:, 0].sum(), leaf)
    assert torch.cosine_similarity(found.flatten(1), expected.flatten(1)).min() > 0.5
    for row in range(6):
        one = leaf[row : row + 1].detach().requires_grad_()
        (alone,) = torch.autograd.grad(BPDAModel(hidden)(one)[:, 0].sum(), one)
        torch.testing.assert_close(alone[0], found[row], rtol=1e-4, atol=1e-5)


def test_a_custom_function_that_changes_the_shape_has_an_estimated_gradient():
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.tensor(x.tolist())[:, ::2]

        @staticmethod
        def backward(ctx, gradient):
            return None

    x = torch.rand(4, 8).requires_grad_()
    (found,) = torch.autograd.grad(BPDAModel(FunctionModel(lambda x: Halved.apply(x) @ torch.ones(4)))(x).sum(), x)
    expected = torch.tensor([1.0, 0.0] * 4).expand(4, 8)
    assert torch.cosine_similarity(found, expected).min() > 0.8


class Positions(nn.Module):
    """Positional encodings from a module that gets the images."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.linspace(0, 1, images.shape[-1]).expand(1, *images.shape[1:])


@pytest.mark.parametrize("n", [1, 3])
def test_constants_have_no_gradient(n):
    class Honest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions, self.linear = Positions(), nn.Linear(36, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear((images + self.positions(images)).flatten(1))

    torch.manual_seed(0)
    model, images = Honest(), torch.rand(n, 1, 6, 6).requires_grad_()
    found, expected = (torch.autograd.grad(each(images)[:, 0].sum(), images)[0] for each in (BPDAModel(model), model))
    assert torch.equal(found, expected)


NOT_CALLED = {
    "quantised": r"quantized|prepack|q_|fbgemm|int_repr|qparams|moving_avg|qscheme|_rowwise|fake_quantize",
    "sparse or nested": r"crow_|col_|row_|ccol_|values|indices|sparse|smm|s[sp]?p?addmm|_nnz|_dim[IV]|coalesce|_nested",
    "integers alone": r"gcd|lcm|unravel_index",
    "symbolic numbers": r"sym_|_assert_async",
    "between processes": r"all_gather|all_reduce|all_to_all|broadcast$|irecv|isend|^recv|^send|^reduce",
    "differentiable, with special arguments": (
        r"norm|conv|rnn|lstm|gru|dropout|pool|grid|loss|stft|fold|cross|cholesky|solve|lu_|ormqr|addmv|attention|"
        r"expand|broadcast_to|as_strided|view_as|split_with|scatter_reduce|select_scatter|index_reduce|flatten|imag|"
        r"float_power|segment|embedding_bag|shuffle|_copy|_to_dense|stack|ifft|ihfft"
    ),
    "devices, storage and Python's protocols": (
        r"^__|cuda|xpu|mtia|ipu|stream|pin_memory|resize|autocast|storage|register_|requires_grad|numpy|miopen"
    ),
}


def test_every_function_without_a_useful_derivative_is_in_the_registry_or_exempt_with_a_reason():
    """Calls every function that can be intercepted with some arguments that it accepts."""
    torch.manual_seed(0)
    neither, not_called = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for function in torch.overrides.get_testing_overrides():
            name = getattr(function, "__name__", "")
            if normalized_name(name)[0] in SURROGATES or normalized_name(name)[0] in EXEMPT:
                continue
            found = probed(function)
            if "ok" in found:
                continue
            if found <= {"no tensor"} and found:  # a number or an attribute
                continue
            (not_called if not found else neither).append(name)
    assert neither == []
    assert [name for name in not_called if not any(re.search(each, name) for each in NOT_CALLED.values())] == []


def test_no_function_is_both_registered_and_exempt():
    assert not set(SURROGATES) & set(EXEMPT)
