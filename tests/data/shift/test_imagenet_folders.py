from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.core.errors import ConfigError, DataError, ModelError
from isthmus.data.images import as_float
from isthmus.data.shift.shifted import load
from tests.data.shift.published_sets import photographs

CLASSES = ("n01440764", "n01498041", "n01531178", "n02007558")
SIZES = [(224, 224)] * 3


@pytest.fixture
def corrupted(tmp_path: Path) -> Path:
    """Fog at two severities, of three classes of four."""
    for severity in (1, 2):
        for wnid in CLASSES[1:]:
            photographs(tmp_path / "fog" / str(severity), wnid, SIZES, seed=severity)
    return tmp_path


@pytest.fixture
def adversarial(tmp_path: Path) -> Path:
    """Photographs of all forms of two classes, and the file that lies beside the published ones."""
    photographs(tmp_path / "a", CLASSES[3], [(500, 375), (300, 300)], suffix="jpg")
    photographs(tmp_path / "a", CLASSES[1], [(257, 613), (120, 100), (256, 225)], suffix="jpg")
    (tmp_path / "a" / "README.txt").write_text("about")
    return tmp_path / "a"


def given(root: Path, severity: int = 1, **options: object) -> dict[str, object]:
    return {"name": "imagenet_c", "corruption": "fog", "severity": severity, "path": str(root), **options}


def test_imagenet_c_is_read_as_it_is_in_the_order_of_the_names(corrupted: Path) -> None:
    shifted = load(given(corrupted), CLASSES)
    assert shifted.split.labels.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert shifted.occurring.tolist() == [False, True, True, True]
    files = sorted((corrupted / "fog" / "1").rglob("*.JPEG"))
    served = list(shifted.batches(4))
    assert [len(batch.labels) for batch in served] == [4, 4, 1]
    for file, image in zip(files, torch.cat([batch.images for batch in served]), strict=True):
        pixels = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)
        assert torch.equal(image, as_float(pixels))
    assert torch.equal(torch.cat([batch.labels for batch in served]), shifted.split.labels)


def test_labels_are_those_of_the_training_set(corrupted: Path) -> None:
    classes = tuple(reversed(CLASSES))
    assert load(given(corrupted), classes).split.labels.tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]


def test_archives_may_be_unpacked_in_folders_of_their_own(corrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = corrupted / "hendrycks" / "ImageNet-C" / "weather"
    place.mkdir(parents=True)
    (corrupted / "fog").rename(place / "fog")
    monkeypatch.setenv("ISTHMUS_DATA", str(corrupted))
    options = {"name": "imagenet_c", "corruption": "fog", "severity": 2}
    assert len(load(options, CLASSES)) == 9


def test_severities_are_of_the_same_images_unless_a_file_is_missing(corrupted: Path) -> None:
    first, second = (load(given(corrupted, severity), CLASSES) for severity in (1, 2))
    assert first.examples == second.examples
    assert not torch.equal(first.split.images, second.split.images)
    (corrupted / "fog" / "2" / CLASSES[2] / "ILSVRC2012_val_00000001.JPEG").unlink()
    assert load(given(corrupted, 2), CLASSES).examples != first.examples


def test_a_copy_that_is_not_complete_is_said_to_be(corrupted: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        shifted = load(given(corrupted), CLASSES)
    assert "fog, severity 1 has 9 of 50000 published images" in caplog.text
    assert repr(shifted) == "Shifted(imagenet_c, fog, severity 1: 9 of 50000 images, 3 classes)"


def test_a_limit_reads_only_what_it_keeps(corrupted: Path) -> None:
    whole, some = load(given(corrupted), CLASSES), load(given(corrupted, limit=3), CLASSES)
    assert sorted(some.split.labels.tolist()) == [1, 2, 3]
    assert torch.equal(some.split.images, whole.split.images[some.positions])
    again = load(given(corrupted, 2, limit=3), CLASSES)
    assert torch.equal(again.positions, some.positions)


def test_nothing_is_decoded_before_it_is_asked_for(corrupted: Path) -> None:
    broken = corrupted / "fog" / "1" / CLASSES[3] / "ILSVRC2012_val_00000002.JPEG"
    broken.write_bytes(b"no image")
    served = load(given(corrupted), CLASSES).batches(8)
    assert len(next(served).labels) == 8
    with pytest.raises(DataError, match="00000002.JPEG is not a readable image"):
        next(served)


def test_imagenet_a_scales_the_shorter_side_and_cuts_the_centre(adversarial: Path) -> None:
    shifted = load({"name": "imagenet_a", "path": str(adversarial)}, CLASSES)
    assert shifted.split.labels.tolist() == [1, 1, 1, 3, 3]
    files = sorted(adversarial.rglob("*.jpg"))
    for file, image in zip(files, shifted.split.images, strict=True):
        pixels = as_float(torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)[None])
        scale = 256 / min(pixels.shape[2:])
        size = [int(side * scale + 1e-9) for side in pixels.shape[2:]]
        scaled = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        top, left = (round((side - 224) / 2) for side in size)
        expected = scaled[0, :, top : top + 224, left : left + 224]
        # Pillow rounds to bytes after each direction; a cut that is one pixel off differs by more than ten levels
        assert (expected - as_float(image)).abs().mean() < 0.5 / 255


def test_imagenet_a_lets_a_classifier_choose_among_its_own_classes(adversarial: Path) -> None:
    shifted = load({"name": "imagenet_a", "path": str(adversarial)}, CLASSES)
    assert shifted.choices is not None
    assert shifted.choices.tolist() == [1, 3]
    logits = torch.tensor([[9.0, 1.0, 5.0, 2.0], [0.0, 3.0, 1.0, 2.0], [torch.nan, 3.0, 1.0, 2.0]])
    assert shifted.predictions(logits).tolist() == [3, 1, 1]
    assert shifted.predictions(logits, restricted=False).tolist() == [0, 1, -1]
    logits[0, 1], logits[1, 3], logits[2] = torch.inf, -torch.inf, -torch.inf
    assert shifted.predictions(logits).tolist() == [-1, 1, -1]


def test_logits_of_other_classes_are_refused(adversarial: Path) -> None:
    shifted = load({"name": "imagenet_a", "path": str(adversarial)}, CLASSES)
    with pytest.raises(ModelError, match=r"shape \(2, 200\), but imagenet_a was loaded for 4 classes"):
        shifted.predictions(torch.zeros(2, 200))


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_c"])
def test_classes_must_be_given_by_the_folders_names(adversarial: Path, corrupted: Path, name: str) -> None:
    options = given(corrupted) if name == "imagenet_c" else {"name": name, "path": str(adversarial)}
    with pytest.raises(DataError, match="needs `classes`.*WordNet ids, sorted"):
        load(options)
    with pytest.raises(DataError, match=r"has the classes n01498041.*\(tench, stingray\).*WordNet ids"):
        load(options, ("tench", "stingray"))


def test_images_of_another_size_are_not_scaled_unasked(tmp_path: Path) -> None:
    photographs(tmp_path / "fog" / "1", CLASSES[0], [(299, 299)])
    with pytest.raises(DataError, match="is 299×299; expected 224×224.*Set size"):
        load(given(tmp_path), CLASSES)
    assert load(given(tmp_path, size=299), CLASSES).split.shape == (3, 299, 299)


def test_folders_that_are_missing_or_empty_are_named(tmp_path: Path, corrupted: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*fog/3, nor .*weather/fog/3. Unpack noise.tar.*zenodo"):
        load(given(corrupted, 3), CLASSES)
    (corrupted / "fog" / "4").mkdir()
    with pytest.raises(DataError, match=r"4 has no <class>/ folders with images. Unpack"):
        load(given(corrupted, 4), CLASSES)
    (corrupted / "fog" / "4" / CLASSES[0]).mkdir()
    with pytest.raises(DataError, match=r"fog/4/n01440764 holds no image"):
        load(given(corrupted, 4), CLASSES)


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="shorter=200 leaves no 224×224 pixels"):
        load({"name": "imagenet_a", "shorter": 200}, CLASSES)


def test_imagenet_r_is_scored_among_the_classes_it_has(adversarial: Path) -> None:
    shifted = load({"name": "imagenet_r", "path": str(adversarial)}, CLASSES)
    assert shifted.published == 30_000
    assert shifted.split.labels.tolist() == [1, 1, 1, 3, 3]
    logits = torch.tensor([[9.0, 0.0, 5.0, 1.0]]).expand(5, -1)
    assert shifted.predictions(logits).tolist() == [3] * 5
    assert shifted.predictions(logits, restricted=False).tolist() == [0] * 5


def test_3d_corruptions_are_found_by_their_own_names(tmp_path: Path) -> None:
    photographs(tmp_path / "xy_motion_blur" / "4", CLASSES[2], SIZES)
    options = {"name": "imagenet_3dcc", "corruption": "xy_motion_blur", "severity": 4, "path": str(tmp_path)}
    shifted = load(options, CLASSES)
    assert (shifted.name, shifted.split.labels.tolist()) == ("imagenet_3dcc, xy_motion_blur, severity 4", [2, 2, 2])
    with pytest.raises(DataError, match=r"no folder .*flash/4\. Get it with the tool"):
        load({**options, "corruption": "flash"}, CLASSES)
    with pytest.raises(ConfigError, match="no corruption 'fog'. Did you mean 'fog_3d'"):
        load({**options, "corruption": "fog"}, CLASSES)
    with pytest.raises(ConfigError, match="no corruption 'fog_3d'"):
        load({**options, "name": "imagenet_c", "corruption": "fog_3d"}, CLASSES)


def test_numbers_of_imagenet_v2_are_places_among_the_sorted_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    root = tmp_path / "modestyachts" / "ImageNetV2" / "imagenetv2-top-images-format-val"
    for number in (0, 2, 10, 999):
        (root / str(number)).mkdir(parents=True)
        Image.new("RGB", (256, 256), (number % 256, 0, 0)).save(root / str(number) / "a.jpeg")
    classes = [f"n{1000000 + 7 * place:08d}" for place in range(1000)]
    shuffled = [classes[(37 * place) % 1000] for place in range(1000)]
    for given_classes in (classes, shuffled):
        shifted = load("imagenet_v2:top-images", given_classes)
        names = [given_classes[label] for label in shifted.split.labels.tolist()]
        assert names == [classes[number] for number in (0, 10, 2, 999)]  # files in the order of their names
    assert shifted.choices is None
    with pytest.raises(DataError, match="no folder .*matched-frequency-format-val"):
        load("imagenet_v2", classes)
    with pytest.raises(DataError, match=r"numbered like ImageNet's 1,000 WordNet ids.*has 4 classes"):
        load({"name": "imagenet_v2", "path": str(root)}, CLASSES)


def test_imagenet_v2_may_have_ids_as_folders(tmp_path: Path) -> None:
    photographs(tmp_path, CLASSES[3], SIZES[:1])
    assert load({"name": "imagenet_v2", "path": str(tmp_path)}, CLASSES).split.labels.tolist() == [3]
