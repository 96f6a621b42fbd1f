"""Models that worker processes import by name."""

from torch import Tensor, nn


class Cut(nn.Module):
    """Has no gradient."""

    def forward(self, images: Tensor) -> Tensor:
        return images.detach().flatten(1)[:, :3]
