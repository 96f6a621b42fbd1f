"""Small random networks of every kind of layer, and adversaries that search their balls."""

from __future__ import annotations

import torch
from torch import nn

from isthmus.attacks.threats import Linf
from isthmus.certificates import bounds, network, regions


class Residual(nn.Module):
    """x + f(x), with f of two convolutions."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(nn.functional.relu(self.norm(self.first(x)))))


def head(features):
    return [nn.Flatten(), nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 3)]


KINDS = {
    "dense": lambda: [nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)],
    "convolutions": lambda: [nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 2, bias=False), nn.ReLU(), *head(16)],
    "groups": lambda: [nn.Conv2d(1, 4, 3, padding="same"), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, groups=2), *head(16)],
    "leaky": lambda: [
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.LeakyReLU(0.2),
        nn.Linear(8, 6),
        nn.LeakyReLU(),
        nn.Linear(6, 3),
    ],
    "tanh": lambda: [nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)],
    "sigmoid": lambda: [nn.Flatten(), nn.Linear(36, 8), nn.Sigmoid(), nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 3)],
    "max pool": lambda: [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.ReLU(), *head(36)],
    "average pool": lambda: [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), *head(4)],
    "batch norm": lambda: [
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.BatchNorm1d(64),
        *head(64),
    ],
    "residual": lambda: [nn.Conv2d(1, 3, 3, 2), nn.ReLU(), Residual(3), *head(12)],
}


def make(kind, seed, scale=1.0):
    """A network of a kind for 1×6×6 images, with random statistics of its batch norms."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(*KINDS[kind]()).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.3, 3)
                module.weight.data.normal_()
                module.bias.data.normal_()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def pictures(n, seed, size=6):
    """Random images with black and white pixels."""
    generator = torch.Generator().manual_seed(seed)
    return ((torch.rand(n, 1, size, size, generator=generator) - 0.5) * 1.6 + 0.5).clamp(0, 1)


def all_bounds(model, images, labels, threat):
    """Lower bounds of every margin, n × wrong classes, by method."""
    net, region = network.read(model, images), regions.region(threat, images)
    boxes, rows = net.intervals(region.box), bounds.margins(net.num_classes, labels)
    last = len(net.nodes) - 1
    crown = []
    for i in range(len(images)):
        one = region.take(slice(i, i + 1))
        tight = bounds.tightened(net, [box.take(slice(i, i + 1)) for box in boxes], one)
        crown.append(bounds.backward(net, tight, one, rows[i : i + 1], last))
    return {
        "ibp": bounds.interval_margins(boxes[-1], labels),
        "crown-ibp": bounds.backward(net, boxes, region, rows, last),
        "crown": torch.cat(crown),
    }


def margins_of(logits, labels):
    """z_y − z_j of every wrong class, in float64."""
    rows = bounds.margins(logits.shape[1], labels)
    return torch.einsum("nrk,nk->nr", rows, logits.detach().double())


def adversaries(model, images, labels, threat, count, seed):
    """Images of the ball as the library accepts them: corners, edges beyond ε by rounding, gradient signs, noise."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        noise = torch.randn(images.shape, generator=generator)
        if number % 3 == 1:
            leaf = (images + 0.3 * threat.eps * noise.sign()).clamp(0, 1).requires_grad_()
            logits = model(leaf)
            target = (labels + 1 + number % (logits.shape[1] - 1)) % logits.shape[1]
            gap = logits.gather(1, target[:, None]) - logits.gather(1, labels[:, None])
            (noise,) = torch.autograd.grad(gap.sum(), leaf)
        if isinstance(threat, Linf):
            moved = images + noise.sign() * threat.eps
            nudged = torch.nextafter(moved, moved + noise.sign())
            inside = threat.contains(nudged.clamp(0, 1), images)
            moved = torch.where(inside[:, None, None, None], nudged, moved)
        else:
            moved = threat.project(images + 10 * noise, images)
        moved = moved.clamp(0, 1)
        inside = threat.contains(moved, images)
        yield torch.where(inside[:, None, None, None], moved, images)
