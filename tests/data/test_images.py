from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.data.decode import stacked
from isthmus.data.images import ImageData, Split, as_float, check_images, check_labels


def bytes_(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_moments_are_those_of_the_train_split_in_unit_range(tiny: ImageData) -> None:
    scaled = tiny.train.images.numpy() / 255
    np.testing.assert_allclose(tiny.mean, scaled.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(tiny.std, scaled.std((0, 2, 3)), rtol=1e-12)


def test_moments_of_constant_images_have_no_negative_variance() -> None:
    split = Split(torch.full((600, 1, 3, 3), 77, dtype=torch.uint8), torch.arange(600) % 2)
    data = ImageData.of("flat", split, split, ("a", "b"))
    assert data.mean == pytest.approx((77 / 255,))
    assert data.std == pytest.approx((0.0,), abs=1e-7)


def test_fingerprint_tells_any_change_of_bytes_labels_or_shape(tiny: ImageData) -> None:
    def changed(**parts: Split) -> str:
        return ImageData.of("t", parts.get("train", tiny.train), parts.get("test", tiny.test), tiny.classes).fingerprint

    one_pixel = tiny.test.images.clone()
    one_pixel[-1, -1, -1, -1] ^= 1
    relabelled = tiny.train.labels.clone()
    relabelled[0] = 1
    others = [
        changed(test=Split(one_pixel, tiny.test.labels)),
        changed(train=Split(tiny.train.images, relabelled)),
        changed(
            train=Split(tiny.train.images.view(30, 2, 4, 5), tiny.train.labels),
            test=Split(tiny.test.images.view(9, 2, 4, 5), tiny.test.labels),
        ),
    ]
    assert changed() == tiny.fingerprint
    assert len({tiny.fingerprint, *others}) == 4


def test_shape_classes_and_repr(tiny: ImageData) -> None:
    assert (tiny.shape, tiny.num_classes, len(tiny.test)) == ((2, 5, 4), 3, 9)
    assert "30 images of 2×5×4" in repr(tiny)


def test_as_float_maps_every_byte_into_the_unit_interval_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = as_float(every)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (0.0, 1.0)
    assert torch.equal((floats * 255).round().to(torch.uint8), every)
    assert as_float(bytes_(2, 3, 4, 4).to(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64), "uint8 of shape N×C×H×W; got float32"),
        (bytes_(2, 3, 3), torch.zeros(2, dtype=torch.int64), r"got uint8 of shape \(2, 3, 3\)"),
        (bytes_(2, 1, 3, 3), torch.zeros(2, dtype=torch.int32), "int64 of shape N; got int32"),
        (bytes_(2, 1, 3, 3), torch.zeros(2, 1, dtype=torch.int64), r"got int64 of shape \(2, 1\)"),
        (bytes_(2, 1, 3, 3), torch.zeros(3, dtype=torch.int64), "2 images but 3 labels"),
        (bytes_(0, 1, 3, 3), torch.zeros(0, dtype=torch.int64), "at least one image"),
    ],
)
def test_a_split_that_does_not_fit_says_what_it_got(images: torch.Tensor, labels: torch.Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Split(images, labels)


def test_label_out_of_range_names_the_first_and_what_is_allowed(tiny: ImageData) -> None:
    labels = tiny.test.labels.clone()
    labels[4], labels[6] = 3, -1
    with pytest.raises(DataError, match=r"tiny: test.labels\[4\] is 3; with 3 classes a label is 0 to 2 \(2 of 9"):
        dataclasses.replace(tiny, test=Split(tiny.test.images, labels))


def test_class_without_training_example_is_an_error_but_may_be_missing_from_the_test_split(
    tiny: ImageData,
) -> None:
    two_of_three = tiny.train.select((tiny.train.labels != 1).nonzero().flatten())
    with pytest.raises(DataError, match=r"no training example for 1 of 3 classes \(b\)"):
        dataclasses.replace(tiny, train=two_of_three)
    assert dataclasses.replace(tiny, test=two_of_three).num_classes == 3


def test_one_class_or_two_image_shapes_make_no_data_set(tiny: ImageData) -> None:
    with pytest.raises(DataError, match="at least two classes"):
        dataclasses.replace(tiny, classes=("only",))
    with pytest.raises(DataError, match=r"training images are \(2, 5, 4\) but test images are \(2, 4, 5\)"):
        dataclasses.replace(tiny, test=Split(tiny.test.images.view(9, 2, 4, 5), tiny.test.labels))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((1, 1, 2, 2)), "torch tensor N×C×H×W; got ndarray"),
        (torch.zeros(1, 2, 2), r"N×C×H×W with at least one image; got float32 of shape \(1, 2, 2\)"),
        (torch.zeros(0, 1, 2, 2), "at least one image"),
        (bytes_(1, 1, 2, 2), r"floats in \[0, 1\]; got torch.uint8. For bytes, pass images.float\(\) / 255"),
        (torch.full((1, 1, 2, 2), 254.0), "range from 254 to 254. They look like bytes: divide by 255"),
        (torch.linspace(-2.1, 2.6, 4).view(1, 1, 2, 2), "range from -2.1 to 2.6. They look standardised"),
        (torch.full((1, 1, 2, 2), 1.00001), "from 1.00001 to 1.00001. Clamp them"),
        (torch.tensor([0.5, 0.5, 0.5, torch.nan]).view(2, 1, 2, 1), "be finite; image 1 holds nan"),
        (torch.tensor([0.5, torch.inf, 0.5, 0.5]).view(2, 1, 2, 1), "be finite; image 0 holds inf"),
    ],
)
def test_images_of_a_user_are_judged_with_what_was_given_and_what_to_do(images: torch.Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_images(images)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_at_the_edges_of_the_range_pass(kind: torch.dtype) -> None:
    check_images(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).to(kind))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1], "torch tensor of integers; got list"),
        (torch.tensor([0.0, 1.0]), r"integers of shape N, one for each image; got float32 of shape \(2,\)"),
        (torch.tensor([True]), "got bool"),
        (torch.eye(3, dtype=torch.int64), r"got int64 of shape \(3, 3\)"),
        (torch.tensor([0, 9, 10, 11]), r"labels\[2\] is 10; with 10 classes a label is 0 to 9 \(2 of 4"),
        (torch.tensor([-1]), r"labels\[0\] is -1"),
    ],
)
def test_labels_of_a_user_are_judged_with_the_first_bad_one(labels: torch.Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_labels(labels, 10)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type_pass(kind: torch.dtype) -> None:
    check_labels(torch.arange(10).to(kind), 10)


def test_decoded_grey_images_have_the_strides_of_a_contiguous_tensor() -> None:
    """Else convolutions answer in channels-last memory, on which a model's ``view`` fails."""
    split = stacked([np.zeros((28, 28, 1), np.uint8)] * 3, [0, 1, 2], str, "")
    assert split.images.stride() == (784, 784, 28, 1)
