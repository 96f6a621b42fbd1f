"""Models whose outputs are not differentiable logits of several classes, most of them around another model."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from tests.diagnosis.trained_digits import conv_net, digits


class Wrapper(nn.Module):
    """Base of models around another one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class FunctionModel(nn.Module):
    """A function of the images as a model."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        return self.function(images)


class FunctionOfLogits(Wrapper):
    """A function of another model's logits."""

    def __init__(self, model: nn.Module, function) -> None:
        super().__init__(model)
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.model(images))


def two_classes(logits: Tensor) -> Tensor:
    """Logits of the digits below and from 5."""
    return torch.stack([logits[:, :5].logsumexp(1), logits[:, 5:].logsumexp(1)], 1)


def hard_binary_label(logits: Tensor) -> Tensor:
    """One hard label of two classes, as a single number."""
    two = two_classes(logits)
    return (two[:, 1] > two[:, 0]).float()[:, None]


class NumpyLinear(nn.Module):
    """A linear model outside torch, like one behind numpy, ONNX or a service: no gradient, not even by BPDA."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        linear = model[1]
        self.weight, self.bias = linear.weight.numpy(), linear.bias.numpy()

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(images.detach().numpy().reshape(len(images), -1) @ self.weight.T + self.bias)


class LabelsOutsideTorch(Wrapper):
    """Only the predicted class, from outside torch: no gradient, and no logits that a search could climb."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            labels = self.model(images.detach()).argmax(1).tolist()
        return torch.tensor([[float(label == each) for each in range(10)] for label in labels])


class Votes(Wrapper):
    """Votes of three shifted copies of the image: piecewise constant, and a vote has no gradient."""

    def forward(self, images: Tensor) -> Tensor:
        shown = [(images + shift).clamp(0, 1) for shift in (-0.02, 0.0, 0.02)]
        return sum(nn.functional.one_hot(self.model(each).argmin(1), 10) for each in shown).float().neg()


class BatchNormInTraining(nn.Module):
    """Batch norm that always is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.BatchNorm2d(1), conv_net()

    def forward(self, images: Tensor) -> Tensor:
        self.norm.train()
        return self.net(self.norm(images))


class NeverSingle(nn.Module):
    """Batch norm over features in training mode: a single image has no variance, so the model raises an error."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.norm = conv_net(), nn.BatchNorm1d(10, affine=False, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.net(images))


def off_grid(images: Tensor) -> Tensor:
    """Whether any pixel of an image is not a multiple of 1/16, as those of clean digits are."""
    sixteenths = 16 * images
    return ((sixteenths - sixteenths.round()).abs() > 1e-3).flatten(1).any(1, keepdim=True)


class RejectsOffGrid(Wrapper):
    """Constant logits for images whose pixels are off the grid of clean ones."""

    def __init__(self, model: nn.Module, constant: float) -> None:
        super().__init__(model)
        self.constant = constant

    def forward(self, images: Tensor) -> Tensor:
        return torch.where(off_grid(images), self.constant, self.model(images))


class RandomOffGrid(Wrapper):
    """Random logits except for images on the grid of clean ones, so that only attacks notice the randomness."""

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        return logits + off_grid(images) * torch.randn_like(logits)


class NearestTrainingImage(Wrapper):
    """Classifies the nearest training image instead of the given one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.register_buffer("known", digits()[0][:300])

    def forward(self, images: Tensor) -> Tensor:
        nearest = torch.cdist(images.flatten(1), self.known.flatten(1)).argmin(1)
        return self.model(self.known[nearest])


class ConstantGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.full_like(gradient, ctx.value), None


class GradientOf(Wrapper):
    """A model whose gradient has the same value everywhere, such as NaN or infinity."""

    def __init__(self, model: nn.Module, value: float) -> None:
        super().__init__(model)
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        return self.model(ConstantGradient.apply(images, self.value))


class SometimesNaN(Wrapper):
    """NaN for three images out of ten, clean ones as well."""

    def forward(self, images: Tensor) -> Tensor:
        nan = (1000 * images.flatten(1).sum(1, keepdim=True)).sin() < -0.59
        return torch.where(nan, torch.nan, self.model(images))


class LimitedService(Wrapper):
    """A service that classifies a number of images and then raises an error; it cannot be copied."""

    def __init__(self, model: nn.Module, images: int) -> None:
        super().__init__(model)
        self.remaining = [images]

    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle 'socket' object")

    def forward(self, images: Tensor) -> Tensor:
        self.remaining[0] -= len(images)
        if self.remaining[0] < 0:
            raise ConnectionError("quota exceeded")
        return self.model(images)


class NoisySlopes(nn.Module):
    """Two classes whose difference of logits is linear in x − ½, with slopes of 1 plus noise of σ = 5 in each draw.

    The noise is symmetric, so the average prediction is wrong exactly if the mean of x − ½ exceeds ``needed``.
    """

    def __init__(self, needed: float) -> None:
        super().__init__()
        self.needed = needed

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1) - 0.5
        slopes = 1 + 5.0 * torch.randn_like(x)
        lead = 40 * ((slopes * x).mean(1) - self.needed)
        return torch.stack([torch.zeros_like(lead), lead], 1)


class NearlyUniform(Wrapper):
    """Another model's predictions, with probabilities that hardly differ from 1/10."""

    def __init__(self, model: nn.Module, noise: float = 0.0, takes_keys: bool = False) -> None:
        super().__init__(model)
        self.noise, self.takes_keys = noise, takes_keys

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        logits = 2e-4 * self.model(images)
        return logits + self.noise * torch.randn_like(logits) if self.noise else logits


PASSES: Counter[str] = Counter()
"""Example-passes of all :class:`PassCounter`, copies included."""


class CountBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits):
        return logits.clone()

    @staticmethod
    def backward(ctx, gradient):
        PASSES["backward"] += len(gradient)
        return gradient


class PassCounter(Wrapper):
    """Counts the example-passes through the model and any copy of it."""

    def forward(self, images: Tensor) -> Tensor:
        PASSES["forward"] += len(images)
        return CountBackward.apply(self.model(images))
