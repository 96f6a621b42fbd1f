"""Every number of a study says which data it was made from, and what is known of them."""

import json
from pathlib import Path

import pytest

from isthmus.core import provenance
from isthmus.core.errors import FileError
from isthmus.data.loading import load
from isthmus.studies import page
from isthmus.studies.store import Experiment, ResultStore
from isthmus.studies.study import StudyRecord

RESULTS = Path(__file__).parents[2] / "results"
DIGITS = {"name": "digits", "train_limit": 100}


def test_an_experiment_holds_the_fingerprint_of_what_it_loaded(tmp_path):
    store = ResultStore(tmp_path)
    piece = Experiment("piece", {"a": 1}, lambda: {"n": len(load(DIGITS).test)})
    whole = Experiment("whole", {"b": 2}, lambda: dict(store.part(piece)))
    for _ in range(2):  # measured, and then from the piece's file
        assert store.attempt(whole) == ""
        (found,) = store.kept(whole)["data"]
        assert found == {"name": "digits", "fingerprint": load(DIGITS).fingerprint, "note": ""}
        next((tmp_path / "experiments").glob("whole-*.json")).unlink()
    store.attempt(Experiment("toy", {}, lambda: {"n": 1}))
    assert store.kept(Experiment("toy", {}, dict))["data"] == []


def test_a_trained_model_says_what_it_was_trained_on_also_if_it_was_there_before(tmp_path):
    recipe = {
        "name": "small",
        "data": DIGITS,
        "model": {"backbone": {"name": "mlp", "hidden": [8]}},
        "objective": "deterministic",
        "training": {"epochs": 1, "batch_size": 50},
    }
    store = ResultStore(tmp_path)
    for _ in range(2):
        with provenance.uses() as found:
            run = store.train(recipe)
        assert set(found) == {run.info()["data"]["fingerprint"]} == {load(DIGITS).fingerprint}


def test_a_note_on_the_data_stands_on_the_page():
    record = StudyRecord.load(RESULTS / "closer-look" / "figure-6" / "small.json")
    note = {"name": "cifar10", "fingerprint": "0" * 64, "note": "each image went once through JPEG"}
    noted = record.model_copy(update={"data": (note, note)})
    assert noted.notes == ["cifar10: each image went once through JPEG."]
    assert "cifar10: each image went once through JPEG." in page.render(noted)
    assert f"cifar10 (fingerprint {'0' * 16}…)" in page.render(noted)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*/*.json")), ids=lambda path: "/".join(path.parts[-3:]))
def test_committed_records_of_images_hold_their_fingerprints(path):
    content = json.loads(path.read_text("utf-8"))
    if "config" in content and "study" in content and "data" in content["config"]:
        assert content["data"]
        assert all(len(each["fingerprint"]) == 64 for each in content["data"])


def test_a_record_with_a_shorter_column_is_refused(tmp_path):
    content = json.loads((RESULTS / "closer-look" / "figure-6" / "small.json").read_text())
    next(iter(content["experiments"].values()))["rows"][0]["low"] = []
    path = tmp_path / "short.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "sha256"}))
    with pytest.raises(FileError, match="no record of a study"):
        StudyRecord.load(path)
