"""A gradient that follows the forward pass, through everything that usually cuts or bends it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isthmus.diagnosis.bpda.model import BPDAModel


class Trick(nn.Module):
    """A linear model behind a trick that is, but for its backward pass, the identity."""

    def __init__(self, trick) -> None:
        super().__init__()
        self.trick, self.linear = trick, nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.trick(images).flatten(1))


class Bent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.mark_dirty()
        return x * 1.0

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class BentLate(torch.autograd.Function):
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


class Opaque(torch.autograd.Function):
    """Its forward cannot be seen into, and would fail on a tensor that has a gradient."""

    @staticmethod
    def forward(ctx, x):
        assert not x.requires_grad
        return torch.tensor(x.tolist())

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class OpaqueQuietly(Opaque):
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
    "custom function": Bent.apply,
    "custom function with setup_context": BentLate.apply,
    "hook": hooked,
    "removed hook": hooked_and_unhooked,
    "opaque custom function": Opaque.apply,
    "quietly opaque custom function": OpaqueQuietly.apply,
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
def test_what_cuts_the_graph_does_not(name):
    torch.manual_seed(0)
    model, images = Trick(IDENTITIES[name]), torch.rand(5, 1, 3, 4)
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
def test_steps_let_the_gradient_through(name):
    torch.manual_seed(0)
    model, images = Trick(STEPS[name]), torch.rand(5, 1, 3, 4)
    honest = BPDAModel(model)
    torch.testing.assert_close(honest(images.clone().requires_grad_()), model(images))
    expected = model.linear.weight[0].expand(5, -1).view_as(images)
    torch.testing.assert_close(gradient(honest, images), expected, rtol=1e-4, atol=1e-5)


def masked(x):
    y = 1 * x
    y[(2 * x).floor().to(torch.bool)] = 0.5
    return y


INTEGERS = {
    "embedding": lambda x: torch.nn.functional.embedding((16 * x).long(), torch.eye(16)).argmax(-1) / 16,
    "one_hot": lambda x: torch.nn.functional.one_hot((16 * x).long(), 16).argmax(-1) / 16,
    "mask": lambda x: x * torch.zeros(2)[(16 * x).to(torch.bool).long()],
    "several indices": lambda x: torch.eye(16)[(16 * x).long(), (16 * x).long()],
    "own integers": lambda x: x * torch.ones(3)[torch.linspace(0, 2, 4).long()],
    "own numbers": lambda x: x * len(range(torch.tensor(2.7).long().item())),
    "masked": masked,
    "bool": lambda x: x * (x.to(torch.bool) & torch.ones(3, 4, dtype=torch.bool)),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_still_indices_and_masks(name):
    torch.manual_seed(0)
    model, images = Trick(INTEGERS[name]), torch.rand(5, 1, 3, 4)
    torch.testing.assert_close(BPDAModel(model)(images.clone().requires_grad_()), model(images))


def test_weights_in_other_precisions():
    torch.manual_seed(0)
    images = torch.rand(5, 1, 3, 4)
    half = Trick(lambda x: x.half())
    half.linear.half()
    torch.testing.assert_close(gradient(BPDAModel(half), images), gradient(half, images))
    double = Trick(lambda x: x.half().double())
    double.linear.double()
    expected = double.linear.weight[0].expand(5, -1).view_as(images).float()
    torch.testing.assert_close(gradient(BPDAModel(double), images), expected)


def test_a_clamp_of_infinity_keeps_its_value():
    model = Trick(lambda x: torch.log(x).clamp(min=-50))
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
    model, images = Trick(THRESHOLDS[name]), torch.rand(5, 1, 3, 4)
    honest = BPDAModel(model)
    torch.testing.assert_close(honest(images.clone().requires_grad_()), model(images))
    found = gradient(honest, images)
    weight = model.linear.weight[0].expand(5, -1).view_as(images)
    near = (images - 0.5).abs() < 0.3
    assert (found.sign() == weight.sign())[near].all()


def test_an_honest_model_is_what_it_was_bit_for_bit():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    images = torch.rand(6, 1, 4, 3)
    assert torch.equal(BPDAModel(model)(images), model(images))
    assert torch.equal(gradient(BPDAModel(model), images), gradient(model, images))


def test_autograd_is_as_before_afterwards():
    def now():
        module = torch.nn.Module
        hooks = module._get_backward_hooks, module._get_backward_pre_hooks
        return hooks, torch.autograd.Function.apply, torch.from_numpy, torch.inference_mode.__enter__

    before = now(), torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError):
        BPDAModel(Trick(lambda x: x / (1 // 0)))(torch.rand(2, 1, 3, 4))
    gradient(BPDAModel(Trick(without_grad)), torch.rand(2, 1, 3, 4))
    assert (now(), torch.is_grad_enabled()) == before
    assert "apply" not in vars(torch.autograd.function._SingleLevelFunction)
    leaf = torch.rand(3, requires_grad=True)
    assert torch.equal(torch.autograd.grad(BentLate.apply(leaf).sum(), leaf)[0], -torch.ones(3))
    with torch.inference_mode():
        assert (leaf * 1).is_inference()


class Last(nn.Module):
    """Uses a custom function after the inner watcher has gone."""

    def forward(self, logits: Tensor) -> Tensor:
        return Bent.apply(logits)


@pytest.mark.parametrize("name", ["custom function", "detach", "no_grad"])
def test_one_inside_another(name):
    torch.manual_seed(0)
    model, images = Trick(IDENTITIES[name]), torch.rand(5, 1, 3, 4)
    twice = BPDAModel(nn.Sequential(BPDAModel(Trick(IDENTITIES[name])), Last()))
    twice.model[0].model.linear = model.linear
    assert torch.equal(gradient(twice, images), gradient(BPDAModel(model), images))
    assert torch.autograd.grad(Bent.apply(images.requires_grad_()).sum(), images)[0].count_nonzero() == 0


def test_threads_do_not_meet():
    """While one thread is inside a watched model, another one comes and goes, and a third watches nothing."""
    torch.manual_seed(0)
    inside, go, found = threading.Event(), threading.Event(), {}

    def waits(x):
        inside.set()
        assert go.wait(600)
        return Bent.apply(x)

    slow, quick, images = Trick(waits), Trick(Bent.apply), torch.rand(5, 1, 3, 4)

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
def test_hooks_on_modules_do_not_bend_the_gradient(kind):
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 3)), torch.rand(5, 1, 3, 4)
    expected = gradient(model, images)
    HOOKS[kind](model[2], lambda module, into, out: tuple(None if each is None else 0 * each for each in into))
    assert gradient(model, images).count_nonzero() == 0
    assert torch.equal(gradient(BPDAModel(model), images), expected)
    assert gradient(model, images).count_nonzero() == 0


def test_a_custom_function_that_fails_says_so():
    class Failing(Bent):
        @staticmethod
        def forward(ctx, x):
            raise KeyError("as before")

    with pytest.raises(KeyError, match="as before"):
        gradient(BPDAModel(Trick(Failing.apply)), torch.rand(2, 1, 3, 4))


def test_remainders_alone_have_no_gradient():
    found = gradient(BPDAModel(Trick(lambda x: torch.remainder(x, 0.3) + 0 * x)), torch.rand(2, 1, 3, 4))
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
def test_a_saturated_output_can_have_a_direction(name):
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
    """Only the label, one-hot."""

    def __init__(self, hard) -> None:
        super().__init__()
        self.linear, self.hard = nn.Linear(12, 4), hard

    def forward(self, images: Tensor) -> Tensor:
        return 1e9 * (2 * self.hard(self.linear(images.flatten(1))).float() - 1)


@pytest.mark.parametrize("name", HARD)
def test_a_hard_label_has_the_direction_of_what_it_was_chosen_from(name):
    torch.manual_seed(0)
    model, images = Hard(HARD[name]), torch.rand(40, 1, 3, 4)
    scout = BPDAModel(model)
    answer = model(images)
    assert set(answer.unique().tolist()) == {-1e9, 1e9}
    torch.testing.assert_close(scout(images.clone().requires_grad_()), answer, rtol=1e-6, atol=0)
    label = answer.argmax(1)
    leaf = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(scout(leaf).gather(1, label[:, None]).sum(), leaf)
    (expected,) = torch.autograd.grad(
        model.linear(leaf.flatten(1)).log_softmax(1).gather(1, label[:, None]).sum(), leaf
    )
    assert torch.cosine_similarity(found.flatten(1), expected.flatten(1)).median() > 0.7


@pytest.mark.parametrize("name", ["one_hot", "rows of a table", "scatter", "scatter_", "set by index"])
def test_a_hard_label_can_have_the_value_of_what_it_was_chosen_from(name):
    torch.manual_seed(0)
    model, images = Hard(HARD[name]), torch.rand(40, 1, 3, 4).requires_grad_()
    valued = BPDAModel(model, unsaturated="values")(images)
    torch.testing.assert_close(valued, 1e9 * (2 * model.linear(images.flatten(1)) - 1))


def test_a_softmax_can_have_the_value_of_its_logarithm():
    images = torch.rand(40, 12).requires_grad_()
    valued = BPDAModel(nn.Softmax(1), unsaturated="values")(images)
    torch.testing.assert_close(valued, images.log_softmax(1))


def test_without_gradients_the_images_are_left_alone_too():
    images = torch.rand(2, 1, 3, 4)
    before = images.clone()
    with torch.no_grad():
        BPDAModel(Trick(lambda x: x.mul_(2)))(images)
    assert torch.equal(images, before)
