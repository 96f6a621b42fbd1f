"""BPDA: a gradient that follows the forward pass, through operations that cut or distort it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isthmus.diagnosis.bpda.model import BPDAModel


class LinearAfter(nn.Module):
    """A linear model after a function, which is the identity apart from its backward pass."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.linear = function, nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.function(images).flatten(1))


class ZeroBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.mark_dirty()
        return x * 1.0

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class ZeroBackwardWithSetupContext(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * 1.0

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def hooked(x):
    x = x * 1.0
    if x.requires_grad:
        x.register_hook(lambda gradient: -gradient)
    return x


def hooked_and_unhooked(x):
    if x.requires_grad:
        handle = x.register_hook(torch.zeros_like)
        assert isinstance(handle.id, int)
        handle.remove()
    return x


class OutsideTorch(torch.autograd.Function):
    """Its forward pass leaves torch, and fails on a tensor with a gradient."""

    @staticmethod
    def forward(ctx, x):
        assert not x.requires_grad
        return torch.tensor(x.tolist())

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class OutsideTorchWithGradient(OutsideTorch):
    @staticmethod
    def forward(ctx, x):
        return torch.tensor(x.tolist())


def in_inference_mode(x):
    with torch.inference_mode():
        return x * 1.0


def without_grad(x):
    with torch.no_grad():
        return x * 1.0


def in_place(x):
    return x.mul_(1.0)


IDENTITIES = {
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data * 1.0,
    "no_grad": without_grad,
    "custom function": ZeroBackward.apply,
    "custom function with setup_context": ZeroBackwardWithSetupContext.apply,
    "hook": hooked,
    "removed hook": hooked_and_unhooked,
    "opaque custom function": OutsideTorch.apply,
    "quietly opaque custom function": OutsideTorchWithGradient.apply,
    "inference_mode": in_inference_mode,
    "decorated with inference_mode": torch.inference_mode()(lambda x: x * 1.0),
    "copied by torch.tensor": lambda x: torch.tensor(x, dtype=torch.float32),
    "copied by new_tensor": lambda x: x.new_tensor(x),
    "numpy": lambda x: torch.from_numpy(x.detach().numpy() * np.float32(1)),
    "numpy array": lambda x: torch.as_tensor(np.asarray(x.detach(), dtype=np.float64)).float(),
    "half precision": lambda x: x.half().float(),
    "double precision for a while": lambda x: x.double().float(),
    "half precision of doubles": lambda x: x.double().half().float(),
    "in place": in_place,
}


def gradient(model: nn.Module, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    return found


@pytest.mark.filterwarnings("ignore:To copy construct")
@pytest.mark.parametrize("name", IDENTITIES)
def test_operations_that_cut_the_graph_have_the_gradient_of_the_identity(name):
    torch.manual_seed(0)
    model, images = LinearAfter(IDENTITIES[name]), torch.rand(5, 1, 3, 4)
    expected = model.linear.weight[0].expand(5, -1).view_as(images)
    torch.testing.assert_close(gradient(BPDAModel(model), images), expected)


def rounded_in_place(x):
    y = 7 * x
    y.round_()
    return y / 7


def clamped_in_place(x):
    y = 1 * x
    y.clamp_(0.4, 0.6)
    return y


def remainder_in_place(x):
    y = 1 * x
    y %= 0.25
    return x - y


STEPS = {
    "round": lambda x: (7 * x).round() / 7,
    "floor": lambda x: torch.floor(8 * x) / 8,
    "byte": lambda x: (255 * x).to(torch.uint8).float() / 255,
    "floor division": lambda x: 0.1 * (x // 0.1),
    "clamp": lambda x: x.clamp(0.4, 0.6),
    "clamp below": lambda x: torch.clamp(x, min=0.5),
    "round in place": rounded_in_place,
    "clamp in place": clamped_in_place,
    "remainder": lambda x: x - torch.remainder(x, 0.25),
    "modulo": lambda x: x - x % 0.25,
    "remainder in place": remainder_in_place,
    "fmod": lambda x: x - x.fmod(0.25),
    "frac": lambda x: (8 * x - torch.frac(8 * x)) / 8,
    "bits": lambda x: ((255 * x).byte() >> 4 << 4).float() / 255,
    "lookup": lambda x: torch.linspace(0, 15, 16)[(16 * x).long()] / 16,
    "lookup of integers": lambda x: torch.arange(16).index_select(0, (16 * x).long().flatten()).view_as(x).float() / 16,
    "take": lambda x: torch.take(torch.linspace(0, 15, 16), (16 * x).long()) / 16,
    "gather": lambda x: torch.linspace(0, 15, 16).expand(len(x), 16).gather(1, (16 * x).long().flatten(1)) / 16,
    "numpy": lambda x: torch.tensor(np.round(7 * x.detach().numpy()) / 7),
    "integers from numpy": lambda x: torch.from_numpy((x.detach().numpy() * 255).astype("uint8")) / 255 + 254 / 255 * x,
}


@pytest.mark.parametrize("name", STEPS)
def test_step_functions_have_the_gradient_of_the_identity(name):
    torch.manual_seed(0)
    model, images = LinearAfter(STEPS[name]), torch.rand(5, 1, 3, 4)
    bpda = BPDAModel(model)
    torch.testing.assert_close(bpda(images.clone().requires_grad_()), model(images))
    expected = model.linear.weight[0].expand(5, -1).view_as(images)
    torch.testing.assert_close(gradient(bpda, images), expected, rtol=1e-4, atol=1e-5)


def masked(x):
    y = 1 * x
    y[(2 * x).floor().to(torch.bool)] = 0.5
    return y


INTEGERS = {
    "embedding": lambda x: torch.nn.functional.embedding((16 * x).long(), torch.eye(16)).argmax(-1) / 16,
    "one_hot": lambda x: torch.nn.functional.one_hot((16 * x).long(), 16).argmax(-1) / 16,
    "mask": lambda x: x * torch.zeros(2)[(16 * x).to(torch.bool).long()],
    "several indices": lambda x: torch.eye(16)[(16 * x).long(), (16 * x).long()],
    "integers without a gradient": lambda x: x * torch.ones(3)[torch.linspace(0, 2, 4).long()],
    "Python numbers": lambda x: x * len(range(torch.tensor(2.7).long().item())),
    "masked": masked,
    "bool": lambda x: x * (x.to(torch.bool) & torch.ones(3, 4, dtype=torch.bool)),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_and_booleans_still_work_as_indices_and_masks(name):
    torch.manual_seed(0)
    model, images = LinearAfter(INTEGERS[name]), torch.rand(5, 1, 3, 4)
    torch.testing.assert_close(BPDAModel(model)(images.clone().requires_grad_()), model(images))


def test_weights_in_other_precisions():
    torch.manual_seed(0)
    images = torch.rand(5, 1, 3, 4)
    half = LinearAfter(lambda x: x.half())
    half.linear.half()
    torch.testing.assert_close(gradient(BPDAModel(half), images), gradient(half, images))
    double = LinearAfter(lambda x: x.half().double())
    double.linear.double()
    expected = double.linear.weight[0].expand(5, -1).view_as(images).float()
    torch.testing.assert_close(gradient(BPDAModel(double), images), expected)


def test_a_clamp_of_infinity_keeps_its_value():
    model = LinearAfter(lambda x: torch.log(x).clamp(min=-50))
    images = torch.zeros(2, 1, 3, 4)
    assert torch.equal(BPDAModel(model)(images.clone().requires_grad_()), model(images))


THRESHOLDS = {
    "float": lambda x: (x[..., None] > torch.linspace(0.1, 0.9, 9)).float().mean(-1),
    "sum": lambda x: (x[..., None] >= torch.linspace(0.1, 0.9, 9)).sum(-1) / 9,
    "where": lambda x: torch.where(x > 0.5, torch.ones_like(x.detach()), torch.zeros(())),
    "product": lambda x: torch.ones(3, 4) * (x > 0.5),
    "sign": lambda x: torch.sign(x - 0.5),
    "below": lambda x: 1 - (x < 0.5).to(x.dtype),
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_has_the_sign_of_its_slope(name):
    torch.manual_seed(0)
    model, images = LinearAfter(THRESHOLDS[name]), torch.rand(5, 1, 3, 4)
    bpda = BPDAModel(model)
    torch.testing.assert_close(bpda(images.clone().requires_grad_()), model(images))
    found = gradient(bpda, images)
    weight = model.linear.weight[0].expand(5, -1).view_as(images)
    near = (images - 0.5).abs() < 0.3
    assert (found.sign() == weight.sign())[near].all()


def test_a_differentiable_model_is_unchanged_bit_for_bit():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    images = torch.rand(6, 1, 4, 3)
    assert torch.equal(BPDAModel(model)(images), model(images))
    assert torch.equal(gradient(BPDAModel(model), images), gradient(model, images))


def test_torch_is_restored_afterwards():
    def now():
        module = torch.nn.Module
        hooks = module._get_backward_hooks, module._get_backward_pre_hooks
        return hooks, torch.autograd.Function.apply, torch.from_numpy, torch.inference_mode.__enter__

    before = now(), torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError):
        BPDAModel(LinearAfter(lambda x: x / (1 // 0)))(torch.rand(2, 1, 3, 4))
    gradient(BPDAModel(LinearAfter(without_grad)), torch.rand(2, 1, 3, 4))
    assert (now(), torch.is_grad_enabled()) == before
    assert "apply" not in vars(torch.autograd.function._SingleLevelFunction)
    leaf = torch.rand(3, requires_grad=True)
    assert torch.equal(torch.autograd.grad(ZeroBackwardWithSetupContext.apply(leaf).sum(), leaf)[0], -torch.ones(3))
    with torch.inference_mode():
        assert (leaf * 1).is_inference()


class Last(nn.Module):
    """Uses a custom function after the inner interception has ended."""

    def forward(self, logits: Tensor) -> Tensor:
        return ZeroBackward.apply(logits)


@pytest.mark.parametrize("name", ["custom function", "detach", "no_grad"])
def test_nested_models(name):
    torch.manual_seed(0)
    model, images = LinearAfter(IDENTITIES[name]), torch.rand(5, 1, 3, 4)
    twice = BPDAModel(nn.Sequential(BPDAModel(LinearAfter(IDENTITIES[name])), Last()))
    twice.model[0].model.linear = model.linear
    assert torch.equal(gradient(twice, images), gradient(BPDAModel(model), images))
    assert torch.autograd.grad(ZeroBackward.apply(images.requires_grad_()).sum(), images)[0].count_nonzero() == 0


def test_threads_are_independent():
    """While one thread runs an intercepted model, another enters and leaves, and a third is not intercepted."""
    torch.manual_seed(0)
    inside, go, found = threading.Event(), threading.Event(), {}

    def waits(x):
        inside.set()
        assert go.wait(600)
        return ZeroBackward.apply(x)

    slow, quick, images = LinearAfter(waits), LinearAfter(ZeroBackward.apply), torch.rand(5, 1, 3, 4)

    def run():
        found["slow"] = gradient(BPDAModel(slow), images)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert inside.wait(600)
        found["quick"] = gradient(BPDAModel(quick), images)
        found["plain"] = gradient(quick, images)
        with torch.inference_mode():
            assert (images * 1).is_inference()
    finally:
        go.set()
        thread.join()
    for name, model in {"slow": slow, "quick": quick}.items():
        torch.testing.assert_close(found[name], model.linear.weight[0].expand(5, -1).view_as(images))
    assert found["plain"].count_nonzero() == 0


HOOKS = {
    "full": lambda module, hook: module.register_full_backward_hook(hook),
    "pre": lambda module, hook: module.register_full_backward_pre_hook(lambda module, out: (0 * out[0],)),
    "legacy": lambda module, hook: module.register_backward_hook(hook),
}


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_on_modules_do_not_change_the_gradient(kind):
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 3)), torch.rand(5, 1, 3, 4)
    expected = gradient(model, images)
    HOOKS[kind](model[2], lambda module, into, out: tuple(None if each is None else 0 * each for each in into))
    assert gradient(model, images).count_nonzero() == 0
    assert torch.equal(gradient(BPDAModel(model), images), expected)
    assert gradient(model, images).count_nonzero() == 0


def test_an_error_in_a_custom_function_is_raised():
    class Failing(ZeroBackward):
        @staticmethod
        def forward(ctx, x):
            raise KeyError("as before")

    with pytest.raises(KeyError, match="as before"):
        gradient(BPDAModel(LinearAfter(Failing.apply)), torch.rand(2, 1, 3, 4))


def test_remainders_have_no_gradient():
    found = gradient(BPDAModel(LinearAfter(lambda x: torch.remainder(x, 0.3) + 0 * x)), torch.rand(2, 1, 3, 4))
    assert found.count_nonzero() == 0


class Saturated(nn.Module):
    def __init__(self, squash) -> None:
        super().__init__()
        self.linear, self.squash = nn.Linear(12, 4), squash

    def forward(self, images: Tensor) -> Tensor:
        return torch.log(self.squash(4000 * self.linear(images.flatten(1))).half().float().clamp(1e-6, 1))


SATURATED = {
    "softmax": lambda z: z.softmax(1),
    "functional": lambda z: torch.nn.functional.softmax(z, dim=-1),
    "module": nn.Softmax(1),
    "sigmoid": torch.sigmoid,
    "tanh": lambda z: z.tanh() + 1,
    "erf": lambda z: torch.erf(z) + 1,
}


@pytest.mark.parametrize("name", SATURATED)
def test_a_saturated_output_can_have_a_gradient(name):
    torch.manual_seed(0)
    model, images = Saturated(SATURATED[name]), torch.rand(5, 1, 3, 4)
    free = BPDAModel(model, unsaturated="gradients")
    assert gradient(BPDAModel(model), images).count_nonzero() == 0
    torch.testing.assert_close(free(images.clone().requires_grad_()), model(images))
    leaf = images.clone().requires_grad_()
    (margin,) = torch.autograd.grad((free(leaf)[:, 0] - free(leaf)[:, 1]).sum(), leaf)
    (expected,) = torch.autograd.grad((model.linear(leaf.flatten(1)) @ torch.tensor([1.0, -1, 0, 0])).sum(), leaf)
    assert margin.isfinite().all()
    assert (torch.cosine_similarity(margin.flatten(1), expected.flatten(1)) > 0.5).float().mean() > 0.5


def scattered(z):
    return torch.zeros_like(z).scatter(1, z.argmax(1, keepdim=True), 1.0)


def scattered_in_place(z):
    hard = torch.zeros_like(z)
    hard.scatter_(1, z.argmax(1, keepdim=True), 1.0)
    return hard


def set_by_index(z):
    hard = torch.zeros_like(z)
    hard[torch.arange(len(z)), z.max(1).indices] = 1
    return hard


HARD = {
    "one_hot": lambda z: torch.nn.functional.one_hot(z.argmax(1), 4),
    "one_hot of a sort": lambda z: torch.nn.functional.one_hot(z.sort(1, descending=True).indices[:, 0], 4),
    "rows of a table": lambda z: torch.eye(4)[z.argmax(1)],
    "scatter": scattered,
    "scatter_": scattered_in_place,
    "set by index": set_by_index,
    "the largest": lambda z: (z == z.max(1, keepdim=True).values) * 1.0,
    "no less than the largest": lambda z: (z >= z.amax(1, keepdim=True)).float(),
}


class Hard(nn.Module):
    """Returns only the label, one-hot."""

    def __init__(self, hard) -> None:
        super().__init__()
        self.linear, self.hard = nn.Linear(12, 4), hard

    def forward(self, images: Tensor) -> Tensor:
        return 1e9 * (2 * self.hard(self.linear(images.flatten(1))).float() - 1)


@pytest.mark.parametrize("name", HARD)
def test_a_hard_label_has_the_gradient_direction_of_the_logits(name):
    torch.manual_seed(0)
    model, images = Hard(HARD[name]), torch.rand(40, 1, 3, 4)
    bpda = BPDAModel(model)
    answer = model(images)
    assert set(answer.unique().tolist()) == {-1e9, 1e9}
    torch.testing.assert_close(bpda(images.clone().requires_grad_()), answer, rtol=1e-6, atol=0)
    label = answer.argmax(1)
    leaf = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(bpda(leaf).gather(1, label[:, None]).sum(), leaf)
    (expected,) = torch.autograd.grad(
        model.linear(leaf.flatten(1)).log_softmax(1).gather(1, label[:, None]).sum(), leaf
    )
    assert torch.cosine_similarity(found.flatten(1), expected.flatten(1)).median() > 0.7


@pytest.mark.parametrize("name", ["one_hot", "rows of a table", "scatter", "scatter_", "set by index"])
def test_a_hard_label_can_have_the_value_of_the_logits(name):
    torch.manual_seed(0)
    model, images = Hard(HARD[name]), torch.rand(40, 1, 3, 4).requires_grad_()
    soft_values = BPDAModel(model, unsaturated="values")(images)
    torch.testing.assert_close(soft_values, 1e9 * (2 * model.linear(images.flatten(1)) - 1))


def test_a_softmax_can_have_the_value_of_its_logarithm():
    images = torch.rand(40, 12).requires_grad_()
    soft_values = BPDAModel(nn.Softmax(1), unsaturated="values")(images)
    torch.testing.assert_close(soft_values, images.log_softmax(1))


def test_images_are_not_changed_without_gradients_either():
    images = torch.rand(2, 1, 3, 4)
    before = images.clone()
    with torch.no_grad():
        BPDAModel(LinearAfter(lambda x: x.mul_(2)))(images)
    assert torch.equal(images, before)
