from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.core import registry
from isthmus.core.errors import ConfigError, DataError
from isthmus.data.cifar10 import CIFAR10
from isthmus.data.cifar100 import CIFAR100
from isthmus.data.shift.shifted import load
from tests.data.shift.published_sets import cifar10_1, cifar10_c


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A folder with version v4."""
    cifar10_1(tmp_path / "new")
    return tmp_path / "new"


@pytest.fixture(scope="session")
def corrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("CIFAR-10-C")
    cifar10_c(folder, "fog")
    return folder


def test_names_are_found_without_importing() -> None:
    imagenet = ["imagenet_3dcc", "imagenet_a", "imagenet_c", "imagenet_r", "imagenet_v2"]
    assert registry.names("shifts") == ["cifar100_c", "cifar10_1", "cifar10_c", *imagenet]


@pytest.mark.parametrize(("version", "count"), [("v4", 2021), ("v6", 2000)])
def test_cifar_10_1_is_what_the_files_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, count: int
) -> None:
    images, labels = cifar10_1(tmp_path / "modestyachts" / "CIFAR-10.1" / "datasets", version)
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    shifted = load(f"cifar10_1:{version}")
    assert len(shifted) == shifted.published == count
    assert shifted.classes == CIFAR10.source.classes
    assert torch.equal(shifted.split.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert shifted.split.labels.tolist() == labels.tolist()
    assert shifted.choices is None


def test_the_recommended_version_is_the_default(tmp_path: Path) -> None:
    cifar10_1(tmp_path, "v6")
    assert len(load({"name": "cifar10_1", "path": str(tmp_path)})) == 2000


def test_labels_follow_the_order_of_the_classifier_s_classes(newer: Path) -> None:
    own = load({"name": "cifar10_1", "version": "v4", "path": str(newer)})
    classes = (*sorted(CIFAR10.source.classes, reverse=True), "zebra")
    other = load({"name": "cifar10_1", "version": "v4", "path": str(newer)}, classes)
    assert other.classes == classes
    names = [CIFAR10.source.classes[label] for label in own.split.labels.tolist()]
    assert [classes[label] for label in other.split.labels.tolist()] == names
    assert other.occurring.tolist() == [True] * 10 + [False]


def test_batches_are_floats_in_order_and_carry_places_in_the_whole_set(newer: Path) -> None:
    shifted = load({"name": "cifar10_1", "version": "v4", "path": str(newer)})
    served = list(shifted.batches(500))
    assert [len(batch.labels) for batch in served] == [500] * 4 + [21]
    images = torch.cat([batch.images for batch in served])
    assert images.dtype == torch.float32
    assert torch.equal((images * 255).round().byte(), shifted.split.images)
    assert torch.equal(torch.cat([batch.indices for batch in served]), torch.arange(2021))


def test_a_limit_keeps_some_of_each_class_and_their_places(newer: Path) -> None:
    options = {"name": "cifar10_1", "version": "v4", "path": str(newer)}
    whole, some = load(options), load({**options, "limit": 50})
    assert some.split.labels.bincount().tolist() == [5] * 10
    assert torch.equal(whole.split.images[some.positions], some.split.images)
    (batch,) = some.batches(64)
    assert torch.equal(batch.indices, some.positions)
    assert some.examples != whole.examples
    assert len(load({**options, "limit": 5000})) == 2021


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_cifar_10_c_is_one_severity_of_one_corruption(corrupted: Path, severity: int) -> None:
    given = {"name": "cifar10_c", "corruption": "fog", "severity": severity, "path": str(corrupted)}
    shifted = load(given)
    assert len(shifted) == 10_000
    assert shifted.split.labels.tolist() == [i % 10 for i in range(10_000)]
    values = shifted.split.images[:20]
    expected = (10 * torch.arange(20) + severity) % 255
    assert torch.equal(values[:, 0, 5, 7].long(), expected)
    assert torch.equal(values[:, 2, 31, 0].long(), expected + 1)
    assert int(shifted.split.images[20:].max()) == 0


def test_cifar_100_c_has_the_same_form_and_other_classes(corrupted: Path) -> None:
    given = {"name": "cifar100_c", "corruption": "fog", "severity": 2, "path": str(corrupted), "limit": 20}
    shifted = load(given)
    assert shifted.name == "cifar100_c, fog, severity 2"
    assert shifted.classes == CIFAR100.source.classes
    assert shifted.examples != load({**given, "name": "cifar10_c"}).examples
    with pytest.raises(DataError, match="lack 100 of CIFAR-100-C: apple"):
        load(given, CIFAR10.source.classes)


def test_severities_are_of_the_same_images(corrupted: Path) -> None:
    given = {"name": "cifar10_c", "corruption": "fog", "path": str(corrupted), "limit": 30}
    first, last = (load({**given, "severity": severity}) for severity in (1, 5))
    assert first.examples == last.examples
    assert torch.equal(first.positions, last.positions)
    assert first.name == "cifar10_c, fog, severity 1"


def spoil(newer: Path, case: str) -> None:
    """Damage one of the two files of v4."""
    images, labels = newer / "cifar10.1_v4_data.npy", newer / "cifar10.1_v4_labels.npy"
    pixels, numbers = np.load(images), np.load(labels)
    match case:
        case "missing images":
            images.unlink()
        case "missing labels":
            labels.unlink()
        case "cut off":
            images.write_bytes(images.read_bytes()[:-1])
        case "empty":
            images.write_bytes(b"")
        case "a pointer":
            images.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        case "a pickle":
            labels.write_bytes(pickle.dumps(numbers))
        case "objects":
            np.save(labels, numbers.astype(object), allow_pickle=True)
        case "an archive":
            with images.open("wb") as file:
                np.savez(file, pixels)
        case "a folder":
            labels.unlink()
            labels.mkdir()
        case "channels first":
            np.save(images, pixels.transpose(0, 3, 1, 2).copy())
        case "another length":
            np.save(labels, numbers[:-1])
        case "floats":
            np.save(images, pixels / np.float32(255))
        case "float labels":
            np.save(labels, numbers.astype(float))
        case "Fortran":
            np.save(images, np.asfortranarray(pixels))
        case "out of range":
            numbers[7] = 10
            np.save(labels, numbers)
        case "negative":
            numbers[3] = -1
            np.save(labels, numbers)


@pytest.mark.parametrize(
    ("case", "message"),
    {
        "missing images": "There is no .*v4_data.npy. .*git clone https://github.com/modestyachts.*ISTHMUS_DATA",
        "missing labels": "There is no .*v4_labels.npy. .*git clone",
        "cut off": "v4_data.npy is not a whole .npy file.*copy it again",
        "empty": "v4_data.npy is not a whole .npy file",
        "a pointer": "v4_data.npy is not a whole .npy file",
        "a pickle": "v4_labels.npy is not a whole .npy file.*pickle",
        "objects": "v4_labels.npy is not a whole .npy file",
        "an archive": "v4_data.npy is an archive .*expected a .npy",
        "a folder": "v4_labels.npy is not a whole .npy file",
        "channels first": r"shape \(2021, 3, 32, 32\); expected \(2021, 32, 32, 3\)",
        "another length": r"v4_labels.npy has the shape \(2020,\); expected \(2021,\)",
        "floats": "v4_data.npy holds float32; images of CIFAR-10.1 are uint8",
        "float labels": "v4_labels.npy holds float64; labels of CIFAR-10.1 are integers",
        "Fortran": "v4_data.npy is stored in Fortran order.*ascontiguousarray",
        "out of range": "label 7 is 10; expected 0 to 9",
        "negative": "label 3 is -1; expected 0 to 9",
    }.items(),
)
def test_damaged_files_say_what_is_wrong(newer: Path, case: str, message: str) -> None:
    spoil(newer, case)
    with pytest.raises(DataError, match=message):
        load({"name": "cifar10_1", "version": "v4", "path": str(newer)})


def test_labels_that_differ_between_severities_are_refused(tmp_path: Path) -> None:
    labels = cifar10_c(tmp_path, "snow", written=0)
    labels[-1] += 1
    labels[-1] %= 10
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(DataError, match="does not hold the same 10,000 labels for each severity"):
        load({"name": "cifar10_c", "corruption": "snow", "severity": 1, "path": str(tmp_path)})


def test_where_files_are_must_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"name": "cifar10_c", "corruption": "fog", "severity": 1}
    with pytest.raises(DataError, match=r"CIFAR-10-C is unknown.*zenodo.*ISTHMUS_DATA.*path"):
        load(given)
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    with pytest.raises(DataError, match="There is no folder .*hendrycks/CIFAR-10-C with CIFAR-10-C"):
        load(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "cifar10_c", "corruption": "fogg", "severity": 1}, "no corruption 'fogg'. Did you mean 'fog'"),
        ({"name": "cifar10_c", "corruption": "fog", "severity": 6}, "severity: .*less than or equal to 5"),
        ({"name": "cifar10_c", "corruption": "fog"}, "severity: Field required"),
        ("cifar10_1:v5", "version: .*'v4' or 'v6'"),
        ("cifar101", "no shifted test set 'cifar101'. Did you mean 'cifar10_1'"),
    ],
)
def test_options_that_do_not_exist(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(given)  # type: ignore[arg-type]


def test_classes_that_do_not_fit(newer: Path) -> None:
    given = {"name": "cifar10_1", "version": "v4", "path": str(newer)}
    with pytest.raises(DataError, match=r"lack 10 of CIFAR-10\.1: airplane.*order of its logits"):
        load(given, [str(digit) for digit in range(10)])
    with pytest.raises(DataError, match="at least two different names"):
        load(given, ["cat", "cat"])


def test_a_complete_set_is_no_reason_to_warn(newer: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load({"name": "cifar10_1", "version": "v4", "path": str(newer), "limit": 10})
    assert not caplog.records
