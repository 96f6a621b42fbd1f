"""scikit-learn's digits: 1,797 handwritten digits of 8×8 pixels, part of the core install; no network needed.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak, UCI 1998). They have no
official split; ours is stratified, about 80% to 20%, and fixed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from isthmus.data.images import ImageData, Split
from isthmus.data.loading import ImageDataset
from isthmus.data.order import stratified

TEST_FRACTION = 0.2
DARKEST = 16  # a pixel is the number of inked points in a 4×4 block


class Digits(ImageDataset):
    """The embedded digits: 1×8×8, 10 classes, 1,438 training and 359 test images."""

    name: Literal["digits"] = "digits"

    def read(self) -> ImageData:
        """The digits, with pixel counts 0…16 spread over 0…255."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = np.rint(bunch.images * (255 / DARKEST)).astype(np.uint8)
        whole = Split(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(bunch.target.astype(np.int64)))
        train, test = stratified(whole.labels, TEST_FRACTION)
        classes = tuple(str(digit) for digit in range(10))
        return ImageData.of("digits", whole.select(train), whole.select(test), classes)
