"""Verification: what holds is found to hold, and no change to a file goes unnoticed."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from isthmus.attacks import L1, L2, Linf, RobustResult, curve, robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.verify import Verification, verify
from isthmus.core.errors import DataError, FileError, ModelError
from tests.attacks.attacked_models import Linear, Noisy, Smooth, proposing, subject

SUITE = ["fgsm", {"name": "pgd", "steps": 12}]


@pytest.fixture(scope="module")
def found():
    model, images, labels = subject()
    return model, images, labels, robust_accuracy(model, images, labels, Linf(0.03), SUITE)


def rewritten(path, change) -> None:
    """Change tensors and facts of a result file by hand, as a forger would."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    facts = json.loads(metadata["facts"])
    change(tensors, facts)
    save_file(tensors, path, metadata | {"facts": json.dumps(facts)})


@pytest.mark.parametrize("threat", [Linf(0.03), L2(0.15), L1(0.5)])
@pytest.mark.parametrize("kind", ["untargeted", "targeted", "random"])
def test_an_honest_result_agrees(tmp_path, threat, kind):
    model, images, labels = subject()
    attacked = Noisy(model, 0.05) if kind == "random" else model
    targets = (labels + 1) % 3 if kind == "targeted" else None
    result = robust_accuracy(attacked, images, labels, threat, SUITE, options=RunOptions(targets=targets), seed=3)
    assert (result.broken & result.correct).any()
    result.save(tmp_path / "r")
    for given, data in (
        (result, {"images": images, "labels": labels}),
        (tmp_path / "r", {"images": images, "labels": labels}),
        (str(tmp_path / "r"), {}),
    ):
        done = verify(given, attacked, batch_size=16, **data)
        assert done.agrees, done
        assert (done.claimed, done.verified) == (result.accuracy,) * 2
        assert done.examples_match is (True if data else None)
        assert done.intact is (None if given is result else True)
        assert done.proven == done.broken == int(result.broken.sum())
        assert done.largest == result.sizes[result.broken].max()


@pytest.mark.parametrize("kind", ["fixed", "random"])
def test_progress_rises_to_the_number_of_examples(kind):
    model, images, labels = subject()
    model = Noisy(model, 0.05) if kind == "random" else model
    result, seen = robust_accuracy(model, images, labels, Linf(0.03), ["fgsm"]), []
    verify(result, model, batch_size=7, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({*range(7, len(images), 7), len(images)})
    assert {total for _, total in seen} == {len(images)}


def test_every_point_of_a_curve_agrees():
    model, images, labels = subject()
    for result in curve(model, images, labels, [Linf(0.01), Linf(0.03), Linf(0.1)], SUITE):
        assert verify(result, model).agrees


def test_the_model_stays_as_it_was(found):
    model, _, _, result = found
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    assert verify(result, model).agrees
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def replaced_witness(tensors, facts):
    tensors["adversarial"][2] = tensors["adversarial"][2].flip(-1)


def original_as_witness(tensors, facts):
    tensors["adversarial"][2] = tensors["images"][tensors["broken"] & (tensors["stage"] > 0)][2]


def witness_out_of_the_box(tensors, facts):
    tensors["adversarial"][2].view(-1)[:] = 1.01


def witness_of_nans(tensors, facts):
    tensors["adversarial"][2] = torch.nan


def label_changed(tensors, facts):
    row = int(((tensors["stage"] > 0) & tensors["broken"]).nonzero()[2])
    tensors["labels"][row] = (tensors["labels"][row] + 2) % 3


def smaller_threat(tensors, facts):
    facts["threat"] = "linf:0.02"


def wider_threat(tensors, facts):
    facts["threat"] = "linf:0.1"


def standing_and_broken(tensors, facts):
    tensors["stage"][int((tensors["stage"] == 0).nonzero()[0])] = -1


def fewer_passes(tensors, facts):
    facts["forward_passes"] = 1


FORGERIES = {
    replaced_witness: "the adversarial image is outside the ball",
    original_as_witness: "the adversarial image is not misclassified",
    witness_out_of_the_box: "the adversarial image is outside the box [0, 1]",
    witness_of_nans: "there is no adversarial image",
    label_changed: "the clean image is not classified as recorded",
    smaller_threat: "the adversarial image is outside the ball",
    wider_threat: None,
    standing_and_broken: "is recorded as broken and as robust at once",
    fewer_passes: None,
}


@pytest.mark.parametrize("change", FORGERIES, ids=lambda change: change.__name__)
def test_whatever_was_changed_in_a_file_is_caught(found, tmp_path, change):
    """By the checksum always; and by the witnesses themselves, wherever the change claims what they do not prove."""
    model, _, _, result = found
    path = tmp_path / "r"
    result.save(path)
    rewritten(path, change)
    done = verify(path, model)
    assert not done.agrees
    assert done.intact is False
    RobustResult.load(path).save(path)  # a forger who writes a new checksum
    done, reason = verify(path, model), FORGERIES[change]
    assert done.intact
    assert done.agrees is (reason is None)
    assert (reason in done.reasons) is (reason is not None)


def test_a_file_that_was_not_touched_is_intact_after_rewriting(found, tmp_path):
    model, _, _, result = found
    result.save(tmp_path / "r")
    rewritten(tmp_path / "r", lambda tensors, facts: None)
    assert verify(tmp_path / "r", model).agrees


def test_accuracy_follows_from_what_is_proven(found):
    """One witness taken away: exactly one example more stands."""
    model, _, _, result = found
    row = int((result.stage > 0).nonzero()[0])
    state = result.state.take(torch.arange(48))
    state.adversarial[row] = result.examples.images[row]
    done = verify(replace(result, state=state), model)
    assert done.failures == {row: "the adversarial image is not misclassified"}
    assert done.verified == (result.robust.sum() + 1) / 48
    assert done.proven == done.broken - 1


def test_another_model_is_told_apart_by_what_transfers(found):
    """Recomputed is the other model's accuracy on originals and witnesses: worked out by hand here."""
    _, images, labels, result = found
    other = Smooth(seed=5)
    done = verify(result, other, images=images, labels=labels)
    with torch.no_grad():
        right = other(torch.where(result.broken[:, None, None, None], result.adversarial, images)).argmax(1) == labels
    assert not done.agrees
    assert done.verified == right.float().mean().item()
    assert done.examples_match


def test_examples_are_compared_with_the_data_set(found, tmp_path):
    model, images, labels, result = found
    result.save(tmp_path / "r")
    stands, broken = int(result.robust.nonzero()[0]), int(result.broken.nonzero()[0])
    other_label, other_pixel = labels.clone(), images.clone()
    other_label[stands] = (labels[stands] + 1) % 3
    other_pixel[broken].view(-1)[0] = other_pixel[broken].view(-1)[0] * 0.5 + 1e-6
    for given in ((images, other_label), (other_pixel, labels), (images[:5], labels[:5])):
        done = verify(tmp_path / "r", model, images=given[0], labels=given[1])
        assert done.examples_match is False
        assert not done.failures
        assert not done.agrees


def test_an_example_that_is_said_to_stand_must_at_least_be_classified_right(found):
    """Two clean errors left out of the record: without the data nobody can tell, with it everybody."""
    model, images, labels, result = found
    hidden = (result.stage == 0).nonzero().squeeze(1)[:2]
    state = result.state.take(torch.arange(48))
    state.broken[hidden], state.stage[hidden], state.correct[hidden] = False, -1, True
    claim = replace(result, state=state)
    assert claim.accuracy > result.accuracy
    done = verify(claim, model, images=images, labels=labels)
    assert set(done.failures) == set(hidden.tolist())
    assert done.reasons == {"is recorded as robust, but its clean image is misclassified": 2}
    assert done.verified == result.accuracy


def test_a_random_models_lucky_draw_proves_nothing():
    """Images that fool one draw in three or so, declared to be witnesses, are not misclassified on average."""
    model = Linear(torch.zeros(2, 16), torch.tensor([0.1, 0.0]))  # right on average, by a little
    noisy = Noisy(model, 1.0)
    images, labels = torch.full((40, 1, 4, 4), 0.5), torch.zeros(40, dtype=torch.int64)
    result = robust_accuracy(noisy, images, labels, Linf(0.1), [proposing(lambda batch, threat: batch.images)])
    assert verify(result, noisy, images=images, labels=labels).agrees
    state = result.state.take(torch.arange(40))
    forged = result.robust
    state.broken[forged], state.stage[forged], state.adversarial[forged] = True, 1, images[forged]
    done = verify(replace(result, state=state, random=False), noisy)
    assert done.reasons["the adversarial image is not misclassified"] >= 0.9 * forged.sum()


def test_examples_set_aside_count_as_neither():
    _, images, labels = subject(20)

    class Fussy(Smooth):
        def forward(self, given):
            logits = super().forward(given)
            return torch.where(given[:, :1, 0, 0] > images[4, 0, 0, 0] - 1e-6, torch.nan, 1.0) * logits

    result = robust_accuracy(Fussy(), images, labels, Linf(0.03), SUITE)
    assert result.invalid.any()
    assert verify(result, Fussy(), images=images, labels=labels).agrees


def test_a_result_with_nothing_broken_agrees():
    model, images, _ = subject()
    result = robust_accuracy(model, images, model(images).argmax(1), Linf(1e-7), ["fgsm"])
    done = verify(result, model)
    named = {"examples": done.examples, "attacks": ("clean", "fgsm")}
    assert done == Verification(Linf(1e-7), 48, 1.0, 1.0, 0, 0, {}, 0.0, None, None, True, **named)
    assert done.agrees


def test_what_cannot_be_verified_is_said(found, tmp_path):
    model, images, _, result = found
    with pytest.raises(FileError, match="There is no file"):
        verify(tmp_path / "none", model)
    with pytest.raises(ModelError, match="nn.Module"):
        verify(result, lambda x: x)
    with pytest.raises(DataError, match="go together"):
        verify(result, model, images=images)
    with pytest.raises(DataError, match=r"labels\[\d+\] is 2"):
        verify(result, Smooth(classes=2))
