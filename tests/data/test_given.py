"""Images and labels in the forms in which people have them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import isthmus
from isthmus.core.errors import ConfigError, DataError
from isthmus.data.given import images_and_labels
from isthmus.data.images import ImageData
from isthmus.data.loading import load

BYTES = torch.randint(0, 256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
FLOATS = BYTES.float() / 255
LABELS = torch.arange(12) % 3


class Rows(Dataset):
    """Examples of the form that ``of`` gives them."""

    def __init__(self, of):
        self.of = of

    def __len__(self):
        return len(BYTES)

    def __getitem__(self, i):
        return self.of(i)


def picture(i):
    return Image.fromarray(BYTES[i].permute(1, 2, 0).numpy())


class Columns:
    """Like a data set of Hugging Face."""

    features = ("image", "label")

    def __len__(self):
        return len(BYTES)

    def __getitem__(self, i):
        return {"image": picture(i), "label": int(LABELS[i])}


FORMS = {
    "tensors": (FLOATS, LABELS),
    "arrays": (FLOATS.numpy(), LABELS.numpy()),
    "lists": (FLOATS.tolist(), LABELS.tolist()),
    "a list of tensors": (list(FLOATS), list(LABELS)),
    "float64": (FLOATS.double(), LABELS.int()),
    "float16": (FLOATS.half(), LABELS.to(torch.uint8)),
    "bytes": (BYTES, LABELS),
    "an array of bytes": (BYTES.numpy(), LABELS.numpy()),
    "a pair": ((FLOATS, LABELS), None),
    "a dataset": (TensorDataset(FLOATS, LABELS), None),
    "a subset": (Subset(TensorDataset(FLOATS, LABELS), range(12)), None),
    "a loader": (DataLoader(TensorDataset(FLOATS, LABELS), batch_size=5), None),
    "a loader of bytes": (DataLoader(TensorDataset(BYTES, LABELS), batch_size=5), None),
    "pictures": (Rows(lambda i: (picture(i), int(LABELS[i]))), None),
    "dictionaries": (Rows(lambda i: {"img": FLOATS[i], "label": LABELS[i]}), None),
    "batches of dictionaries": (DataLoader(Rows(lambda i: {"pixel_values": FLOATS[i], "labels": LABELS[i]})), None),
    "columns": (Columns(), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tensors(form):
    images, labels = images_and_labels(*FORMS[form])
    tolerance = 1e-3 if form == "float16" else 1e-7
    torch.testing.assert_close(images.float(), FLOATS, rtol=0, atol=tolerance)
    assert labels.tolist() == LABELS.tolist()


def test_audit_and_robust_accuracy_take_a_loader():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    loader = DataLoader(TensorDataset(BYTES, LABELS), batch_size=5)
    expected = isthmus.robust_accuracy(model, FLOATS, LABELS, "linf:0.1", ["fgsm"])
    assert torch.equal(
        isthmus.robust_accuracy(model, loader, threat="linf:0.1", suite=["fgsm"]).broken, expected.broken
    )
    audit = isthmus.audit(model, loader, threat="linf:0.1", checks=["accuracy"])
    assert audit.results["accuracy"].metrics.one("accuracy", mode="mean").n == 12


@pytest.mark.parametrize("call", [isthmus.audit, isthmus.robust_accuracy])
def test_a_threat_in_the_place_of_the_labels(call):
    with pytest.raises(ConfigError, match="'linf:0.1' stands in the place of the labels"):
        call(nn.Identity(), TensorDataset(FLOATS, LABELS), "linf:0.1")
    with pytest.raises(ConfigError, match="by name"):
        call(nn.Identity(), FLOATS, LABELS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("images", "without labels"),
        (FLOATS, "without labels"),
        (TensorDataset(FLOATS), "pair of image and label"),
        (TensorDataset(FLOATS[:0], LABELS[:0]), "There are no images"),
        (Rows(lambda i: {"picture": FLOATS[i], "label": 0}), "keys picture, label"),
        (Rows(lambda i: (FLOATS[i, :, : 8 - i % 2], 0)), "different shapes"),
    ],
)
def test_other_things_are_explained(given, message):
    with pytest.raises(DataError, match=message):
        images_and_labels(given)


def test_all_data_are_no_split():
    with pytest.raises(DataError, match="such as its `test`"):
        images_and_labels(load("digits"))
    images, labels = images_and_labels(load("digits").test)
    assert len(images) == len(labels) == 359


class TestFunctions:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path, monkeypatch):
        (tmp_path / "some_images.py").write_text(
            "import torch\nfrom torch.utils.data import TensorDataset\n"
            "from isthmus.data.loading import load\n"
            "images = torch.randint(0, 256, (12, 1, 4, 4), dtype=torch.uint8)\n"
            "def test_only(): return images, torch.arange(12) % 3\n"
            "def floats(): return images / 255, torch.arange(12) % 3\n"
            "both_splits = {'train': TensorDataset(images, torch.arange(12) % 3), 'test': (images[:3], [0, 1, 2])}\n"
            "def both(): return both_splits\n"
            "def whole(): return load('digits')\n"
            "def finer(): return torch.rand(12, 1, 4, 4), torch.arange(12) % 3\n"
            "def fails(): raise OSError('no such mount')\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        yield
        sys.modules.pop("some_images", None)

    @pytest.mark.parametrize(("name", "tests"), [("test_only", 12), ("floats", 12), ("both", 3), ("whole", 359)])
    def test_what_they_return(self, name, tests):
        data = load(f"some_images:{name}")
        assert isinstance(data, ImageData)
        assert len(data.test) == tests
        assert data.test_only == (name in ("test_only", "floats"))

    def test_bytes_and_floats_are_the_same_images(self):
        assert load("some_images:test_only").fingerprint == load("some_images:floats").fingerprint

    def test_class_names(self):
        assert load("some_images:test_only,class_names=[a, b, c]").classes == ("a", "b", "c")

    @pytest.mark.parametrize(("name", "message"), [("finer", "8 bits a channel"), ("fails", "no such mount")])
    def test_faults(self, name, message):
        with pytest.raises(DataError, match=message):
            load(f"some_images:{name}")


class TestTables:
    def written(self, folder, header="path,label,split", rows=None):
        for i in range(12):
            picture(i).save(folder / f"{i}.png")
        rows = rows or [f"{i}.png,{(2, 10)[i % 2]},{'test' if i < 4 else 'train'}" for i in range(12)]
        (folder / "table.csv").write_text("\n".join([header, *rows]))
        return f"csv:{folder / 'table.csv'}"

    def test_paths_labels_and_splits(self, tmp_path):
        data = load(self.written(tmp_path))
        assert data.classes == ("2", "10")
        assert np.array_equal(data.test.images.numpy(), BYTES[:4].numpy())
        assert data.test.labels.tolist() == [0, 1, 0, 1]
        assert len(data.train) == 8

    def test_other_names_and_options(self, tmp_path):
        rows = [f"{i}.png,{'ab'[i % 2]}" for i in range(12)]
        data = load(self.written(tmp_path, "filename,class", rows) + ",channels=1,size=4,classes=[b, a]")
        assert data.classes == ("b", "a")
        assert data.shape == (1, 4, 4)
        assert data.test_only

    @pytest.mark.parametrize(
        ("header", "rows", "message"),
        [
            ("file,kind", ["0.png,1"], "no column 'label'"),
            ("path,label", ["0.png,"], "Line 2 of .* has no label"),
            ("path,label,split", ["0.png,1,val"], "a split is"),
            ("path,label,split", ["0.png,1,train"], "no row whose split is 'test'"),
            ("path,label", ["none.png,1", "0.png,2"], "none.png"),
        ],
    )
    def test_faults(self, tmp_path, header, rows, message):
        with pytest.raises(DataError, match=message):
            load(self.written(tmp_path, header, rows))


def test_options_after_the_name(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "test" / label).mkdir(parents=True)
        picture(0).save(tmp_path / "test" / label / "0.png")
    data = load(f"folder:{tmp_path},channels=1,size=4,classes=[dog, cat]")
    assert data.shape == (1, 4, 4)
    assert data.classes == ("dog", "cat")
    with pytest.raises(ConfigError, match="chanels"):
        load(f"folder:{tmp_path},chanels=1")
