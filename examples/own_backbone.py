"""A backbone of your own inside an information bottleneck, trained by a loop of your own, then audited.

Run it with ``python examples/own_backbone.py --out FOLDER``; it writes own-backbone.html and own-backbone.safetensors.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import isthmus
from isthmus.data.batches import Batches
from isthmus.data.images import ImageData, as_float
from isthmus.data.loading import load
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.modes import StochasticMode


class Backbone(nn.Module):
    """Two convolutions and a global average: images N×1×8×8 to features N×64."""

    features = 64

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, self.features, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Features of images in [0, 1]."""
        return self.layers(images)


def build() -> Bottleneck:
    """An untrained CEB classifier around the backbone: a code of 16 numbers between features and decision."""
    return isthmus.bottleneck(Backbone(), num_classes=10, objective="ceb", dim=16, options={"samples": 4})


def train(model: Bottleneck, data: ImageData, epochs: int) -> None:
    """A loop of your own: the objective is one method of the model, the rest is plain PyTorch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = Batches(data.train, batch_size=64, seed=0)
    for epoch in range(epochs):
        rho = 10.0 - 7.0 * min(1.0, epoch / (0.5 * epochs))  # start with almost no bottleneck, end at ρ = 3
        for images, labels, _ in batches.epoch(epoch):
            terms = model.loss(images, labels, rho=rho)
            optimizer.zero_grad()
            terms.total.backward()
            optimizer.step()
        if epoch % 5 == 4:
            shown = terms.scalars()
            print(
                f"epoch {epoch + 1}: ρ {rho:.1f}, ce {shown['ce']:.3f}, ReX {shown['residual']:.3f}, "
                f"{shown['rate_lower']:.2f} ≤ I(X;Z) ≤ {shown['rate_upper']:.2f} nats, "
                f"accuracy {shown['accuracy']:.3f}"
            )


@torch.no_grad()
def accuracies(model: Bottleneck, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy of the two views of one model: at the mean code, and averaged over 12 sampled codes."""
    model.eval()
    modes = {"mean": model, "stochastic": StochasticMode(model, samples=12, seed=0)}
    return {name: float((mode(images).argmax(1) == labels).float().mean()) for name, mode in modes.items()}


def main(out: Path, epochs: int, count: int) -> isthmus.Audit:
    """Train, compare the modes, audit on the first ``count`` test images, and write page and weights."""
    torch.manual_seed(0)
    data = load("digits")
    model = build()
    train(model, data, epochs)
    images, labels = as_float(data.test.images[:count]), data.test.labels[:count]
    print(accuracies(model, images, labels))

    audit = isthmus.audit(
        model, images, labels, threat=isthmus.Linf(0.1), options=isthmus.AuditOptions(name="own backbone")
    )
    for name, result in audit.results.items():
        print(f"{name}: {result.status}. {result.reason}")
    page = audit.save(out / "own-backbone.html")
    save_file(model.state_dict(), out / "own-backbone.safetensors")
    print(f"page: {page}")
    return audit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the page and the weights")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--count", type=int, default=100, help="test images to audit on")
    given = parser.parse_args()
    torch.set_num_threads(1)  # images of 8×8 are too small to be worth sharing between threads
    main(given.out, given.epochs, given.count)
