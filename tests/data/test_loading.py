from __future__ import annotations

import sys

import pytest
import torch

from isthmus.core import registry
from isthmus.core.config import component
from isthmus.core.errors import ConfigError, DataError
from isthmus.data.digits import Digits
from isthmus.data.images import ImageData
from isthmus.data.loading import load


def test_data_sets_are_found_by_file_name() -> None:
    assert registry.names("data") == [
        "cifar10",
        "cifar100",
        "csv",
        "digits",
        "fashion_mnist",
        "folder",
        "function",
        "imagenet",
        "mnist",
        "parquet",
        "svhn",
    ]


@pytest.mark.parametrize("name", ["cifar10", "digits", "fashion_mnist", "mnist", "svhn"])
def test_every_config_answers_to_its_file_name_and_has_the_common_options(name: str) -> None:
    config = component("data", {"name": name, "train_limit": 5, "test_limit": 7})
    assert (config.name, config.train_limit, config.test_limit) == (name, 5, 7)  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", ["digits", {"name": "digits"}, Digits()])
def test_a_name_a_mapping_and_a_config_load_the_same(given: object) -> None:
    assert load(given).fingerprint == load("digits").fingerprint  # type: ignore[arg-type]


def test_unknown_names_options_and_limits_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'digits'"):
        load("digit")
    with pytest.raises(ConfigError, match="Did you mean 'train_limit'"):
        load({"name": "digits", "train_limits": 3})
    with pytest.raises(ConfigError, match=r"test_limit.*greater than 0"):
        load({"name": "digits", "test_limit": 0})


def test_limits_keep_balanced_prefixes_of_one_shuffle(tiny: ImageData) -> None:
    small = Digits(train_limit=12, test_limit=4).limited(tiny)
    smaller = Digits(train_limit=6, test_limit=4).limited(tiny)
    assert small.train.labels.bincount().tolist() == [4, 4, 4]
    assert torch.equal(small.train.images[:6], smaller.train.images)
    assert len({tiny.fingerprint, small.fingerprint, smaller.fingerprint}) == 3
    assert torch.equal(small.test.images, smaller.test.images)


def test_limits_that_do_not_bite_change_nothing(tiny: ImageData) -> None:
    assert Digits().limited(tiny) is tiny
    assert Digits(train_limit=30, test_limit=1000).limited(tiny) is tiny


def test_a_train_limit_below_the_number_of_classes_says_so(tiny: ImageData) -> None:
    with pytest.raises(DataError, match=r"train_limit=2 leaves classes of tiny without .* at least 3"):
        Digits(train_limit=2).limited(tiny)


def test_a_dataset_that_reads_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Digits, "read", lambda self: [1, 2])
    with pytest.raises(DataError, match="'digits' must return ImageData; got list"):
        load(Digits())


def test_importing_the_room_does_not_import_optional_packages() -> None:
    import subprocess

    code = (
        "import sys, isthmus.data.loading, isthmus.data.mnist, isthmus.data.folder, isthmus.data.digits;"
        "sys.exit(any(name in sys.modules for name in ('datasets', 'PIL', 'sklearn', 'pyarrow', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_random_labels_are_fixed_uniform_and_say_nothing() -> None:
    whole = load({"name": "digits", "random_labels": 3})
    plain = load("digits")
    assert torch.equal(whole.train.images, plain.train.images)
    assert torch.equal(whole.test.labels, plain.test.labels)
    assert torch.equal(load({"name": "digits", "random_labels": 3}).train.labels, whole.train.labels)
    assert whole.fingerprint != plain.fingerprint
    assert not torch.equal(load({"name": "digits", "random_labels": 4}).train.labels, whole.train.labels)
    counts = whole.train.labels.bincount(minlength=10).double()
    expected = len(whole.train) / 10
    assert float(((counts - expected).square() / expected).sum()) < 27.9  # χ² of nine degrees of freedom, p = 0.001
    agreeing = float((whole.train.labels == plain.train.labels).double().mean())
    assert abs(agreeing - 0.1) < 4 * (0.09 / len(whole.train)) ** 0.5


def test_random_labels_of_few_are_the_first_of_many() -> None:
    few = load({"name": "digits", "random_labels": 0, "train_limit": 100})
    more = load({"name": "digits", "random_labels": 0, "train_limit": 200})
    assert torch.equal(few.train.labels, more.train.labels[:100])
    assert torch.equal(few.train.images, more.train.images[:100])


def test_classes_keep_their_examples_and_take_the_places_they_are_named_in(tiny: ImageData) -> None:
    first, second = tiny.classes[2], tiny.classes[0]
    pair = Digits(classes=(first, second)).limited(tiny)
    assert pair.classes == (first, second)
    for split, whole in ((pair.train, tiny.train), (pair.test, tiny.test)):
        assert torch.equal(split.images, whole.images[whole.labels != 1])
        assert torch.equal(split.labels, (whole.labels[whole.labels != 1] == 0).long())
    assert pair.fingerprint != tiny.fingerprint
    few = Digits(classes=(first, second), train_limit=4).limited(tiny)
    assert few.train.labels.bincount().tolist() == [2, 2]


def test_a_pair_of_digits() -> None:
    data = load({"name": "digits", "classes": ["3", "7"]})
    whole = load("digits")
    assert len(data.train) == int(((whole.train.labels == 3) | (whole.train.labels == 7)).sum())
    assert data.num_classes == 2


def test_classes_that_there_are_not_or_are_named_twice_are_refused(tiny: ImageData) -> None:
    with pytest.raises(ConfigError, match="class 'seven'"):
        Digits(classes=("seven", tiny.classes[0])).limited(tiny)
    with pytest.raises(ConfigError, match="named 2 times"):
        Digits(classes=(tiny.classes[0],) * 2).limited(tiny)
