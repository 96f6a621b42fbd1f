"""Shards of an evaluation: merged they are the whole, and what does not belong together is refused."""

from dataclasses import replace

import pytest
import torch

from isthmus.attacks import Linf, RobustResult, robust_accuracy
from isthmus.attacks.engine.inputs import examples
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.shards import merge, parse_shard, rows_of, shard_facts
from isthmus.attacks.suites import stages_of
from isthmus.core.errors import ConfigError, FileError
from tests.attacks.attacked_models import Noisy, subject

QUICK = ["fgsm", {"name": "pgd", "steps": 5, "restarts": 2}]
STANDARD = [
    {"name": "apgd", "steps": 20},
    {"name": "apgd", "loss": "dlr", "targets": 9, "steps": 20},
    {"name": "fab", "targets": 9, "steps": 10},
    "square:100",
]
"""The attacks of ``standard``, with fewer steps."""
EPS = Linf(0.03)
MODEL, IMAGES, LABELS = subject(10)


def shards(folder, count, suite=QUICK, model=MODEL, images=IMAGES, threat=EPS, seed=5, bf16=False):
    """Files of an evaluation's shards."""
    every, attacks, paths = examples(images, LABELS, seed=seed), stages_of(suite), []
    for number in range(1, count + 1):
        part = shard_facts(number, count, model, every, threat, attacks, bf16)
        rows = rows_of(number, count, len(images))
        found = robust_accuracy(
            model, images[rows], LABELS[rows], threat, suite, seed=seed, options=RunOptions(indices=rows)
        )
        paths.append(folder / f"{number}.safetensors")
        replace(found, shard=part).save(paths[-1])
    return paths


def same(merged, whole):
    ours, theirs = merged.state.columns(), whole.state.columns()
    names = ("correct", "broken", "stage", "adversarial", "run", "step")
    assert all(torch.equal(ours[name].nan_to_num(-7), theirs[name].nan_to_num(-7)) for name in names)
    assert torch.equal(merged.adversarial, whole.adversarial)
    assert torch.equal(merged.examples.images, whole.examples.images)
    assert torch.equal(merged.keys, whole.keys)
    assert (merged.accuracy, merged.attacks, merged.complete) == (whole.accuracy, whole.attacks, whole.complete)


@pytest.mark.parametrize(
    "suite",
    [
        pytest.param("standard", marks=pytest.mark.slow),
        pytest.param("ib", marks=pytest.mark.slow),
        pytest.param(STANDARD, id="attacks of standard"),
        pytest.param("rand", marks=pytest.mark.slow),
        pytest.param(QUICK, id="list"),
    ],
)
def test_merged_shards_are_the_unsharded_result(tmp_path, suite):
    whole = robust_accuracy(MODEL, IMAGES, LABELS, Linf(0.03), suite, seed=5)
    assert 0 < whole.accuracy < whole.clean_accuracy
    merged = merge(reversed(shards(tmp_path, 3, suite)))
    same(merged, whole)
    merged.save(tmp_path / "merged.safetensors")
    assert RobustResult.load(tmp_path / "merged.safetensors").shard is None


def test_a_random_model_with_keys_merges_too(tmp_path):
    model = Noisy(MODEL, 0.05)
    same(merge(shards(tmp_path, 2, model=model)), robust_accuracy(model, IMAGES, LABELS, Linf(0.03), QUICK, seed=5))


def test_a_suite_that_ranks_all_images_is_refused():
    with pytest.raises(
        ConfigError,
        match="apgd-3x10, .*square-more",
    ):
        shard_facts(1, 2, MODEL, examples(IMAGES, LABELS), Linf(0.03), stages_of("fast"), False)


def test_more_shards_than_images_are_refused():
    with pytest.raises(ConfigError, match="at most 10 shards"):
        shard_facts(1, 11, MODEL, examples(IMAGES, LABELS), Linf(0.03), stages_of(QUICK), False)


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "a/b", "1/-2", "1/2/3", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ConfigError, match="number/count"):
        parse_shard(text)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("three"), 3)


def test_missing_and_doubled_shards_are_refused(three, tmp_path):
    with pytest.raises(FileError, match="1 of 3 shards are missing: 2"):
        merge([three[0], three[2]])
    with pytest.raises(FileError, match="both shard 1 of 3"):
        merge([*three, three[0]])
    with pytest.raises(FileError, match="no files"):
        merge([])


def changed_model():
    model, _, _ = subject(10)
    with torch.no_grad():
        model.second += 1e-3
    return model


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": changed_model()}, "model"),
        ({"images": IMAGES.roll(1, 0)}, "data"),
        ({"seed": 6}, "seed"),
        ({"threat": Linf(0.02)}, "threat"),
        ({"suite": ["fgsm", {"name": "pgd", "steps": 6, "restarts": 2}]}, "suite"),
        ({"bf16": True}, "precision"),
    ],
)
def test_shards_of_different_evaluations_are_refused_by_what_differs(three, tmp_path, change, named):
    other = shards(tmp_path, 3, **change)
    with pytest.raises(FileError, match=f"differ in .*{named}"):
        merge([three[0], other[1], three[2]])


def test_shards_of_another_version_or_count_are_refused(three, tmp_path):
    second = RobustResult.load(three[1])
    older = {**second.shard.evaluation, "version": "0.0.1"}
    replace(second, shard=second.shard.model_copy(update={"evaluation": older})).save(tmp_path / "older")
    with pytest.raises(FileError, match="version"):
        merge([three[0], tmp_path / "older", three[2]])
    with pytest.raises(FileError, match="count"):
        merge([three[0], *shards(tmp_path, 2)])


def test_only_whole_shards_are_merged(three, tmp_path):
    first = RobustResult.load(three[0])
    replace(first, complete=False).save(tmp_path / "half")
    with pytest.raises(FileError, match="not complete"):
        merge([tmp_path / "half", *three[1:]])
    replace(first, shard=None).save(tmp_path / "whole")
    with pytest.raises(FileError, match="not a shard"):
        merge([tmp_path / "whole", *three[1:]])


def test_images_that_are_not_those_of_the_digest_are_refused(three, tmp_path):
    first = RobustResult.load(three[0])
    images = first.examples.images.clone()
    images[0] = 0.5
    replace(first, examples=replace(first.examples, images=images)).save(tmp_path / "other")
    with pytest.raises(FileError, match="are not those"):
        merge([tmp_path / "other", *three[1:]])
