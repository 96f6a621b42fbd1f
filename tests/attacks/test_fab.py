"""FAB: exact on linear models, and step by step what the published algorithm does."""

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks import FAB, robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer, CountedModel
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.hyperplane import PROJECTIONS
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import PIXELS, Linear, Smooth, pictures, subject

DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
THREATS = [Linf(0.05), L2(0.2), L1(0.3)]
every = pytest.mark.parametrize("threat", THREATS, ids=str)


def weights(classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(classes, PIXELS, generator=torch.Generator().manual_seed(seed))


def batch_of(images, labels, **others) -> Batch:
    return Batch(images, labels, example_keys(0, torch.arange(len(images))), **others)


def course(model, batch, threat, config):
    """The images found by each projection of a run per example, and the looks it took."""
    search, counted_model = config.for_threat(threat, 3), CountedModel(model)
    assert len(batch) == 1
    runs, found = search.init(batch, torch.zeros(1, dtype=torch.int64)), []
    while int(runs.step) < int(runs.budget):
        answer = counted_model.query(runs.x, batch.keys, lambda logits: search.objective(runs, batch, logits))
        search.step(runs, batch, answer)
        if runs.step % 2 == 1:
            found.append(runs.x.clone())
    return found, int(runs.step)


def published(model, image, label, target_class, threat, steps, alpha_max=0.1, eta=1.05, beta=0.9):
    """Algorithm 1 of the paper for one image, as written there: it looks twice in every step."""
    x, found, falls = image.clone(), [], 0
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        logits = model(leaf[None])[0]
        f = logits[target_class] - logits[label]
        (w,) = torch.autograd.grad(f, leaf)
        f = f.detach().float()
        gaps = torch.stack([-f, ((x - image) * w).sum() - f])[:, None]
        moves = PROJECTIONS[threat.name](torch.stack([x, image]).view(2, 1, -1), w.view(1, -1), gaps)[:, 0]
        sizes = threat.norm(moves)
        alpha = min(float(sizes[0] / sizes.sum()), alpha_max)
        to, fro = x + eta * moves[0].view_as(x), image + eta * moves[1].view_as(x)
        x = ((1 - alpha) * to + alpha * fro).clamp(0, 1)
        found.append(x)
        if model(x[None]).argmax() != label:
            falls += 1
            x = image + beta * (x - image)
    return found, falls


@every
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("targets", [9, 0])
def test_on_linear_models_it_finds_what_is_there_to_be_found(threat, classes, targets):
    """Where min_t |z_y − z_t| / ‖w_y − w_t‖_dual is a few per cent below ε it falls, and nowhere above ε."""
    images = pictures(40, low=0.4, high=0.6)
    model = Linear(weights(classes) / 4)
    logits, w = model(images).detach(), model.weight.detach()
    labels = logits.argmax(1)
    normals = np.linalg.norm((w[labels][:, None] - w[None]).numpy(), DUAL[threat.name], axis=2)
    margins = (logits.gather(1, labels[:, None]) - logits).numpy()
    distances = np.divide(margins, normals, out=np.full_like(margins, np.inf), where=normals > 0).min(1)
    median = float(np.median(distances))
    suite = [FAB(steps=15, targets=targets)]
    fell = robust_accuracy(model, images, labels, threat.with_eps(median), suite).broken.numpy()
    assert not fell[distances > median * 1.0001].any()
    if targets or classes == 2:
        assert fell[distances < median * 0.97].all()
    assert fell.any()


@every
def test_at_the_walls_of_the_box_it_attains_the_constrained_optimum(threat):
    images = pictures(40)
    model = Linear(weights(2) / 2)
    labels = model(images).argmax(1)
    margins = (model(images) * torch.tensor([-1.0, 1.0])).sum(1).detach()
    normal = (model.weight[1] - model.weight[0]).detach().expand(1, 40, -1)[0]
    least = PROJECTIONS[threat.name](images.flatten(1)[None].double(), normal, -margins[None])[0]
    distances = threat.norm(least)
    eps = float(distances.median())
    result = robust_accuracy(model, images, labels, threat.with_eps(eps), [FAB(steps=20)])
    assert result.broken[distances < eps * 0.97].all()
    assert not result.broken[distances > eps * 1.0001].any()


@every
@pytest.mark.parametrize("steps", [1, 12])
def test_its_course_is_that_of_the_published_algorithm(threat, steps):
    model, images, labels = subject(n=8)
    for image, label in zip(images, labels, strict=True):
        target_class = (label + 1) % 3
        expected, _ = published(model, image, int(label), int(target_class), threat, steps)
        batch = batch_of(image[None], label[None], target_class=target_class[None])
        found, step = course(model, batch, threat, FAB(steps=steps))
        torch.testing.assert_close(torch.cat(found), torch.stack(expected), rtol=0, atol=1e-5)
        assert step == 2 * steps - 1


@every
def test_a_step_costs_one_backward_and_two_forward_passes(threat):
    """A gradient to project by, and a check of what came: the last one by the judge."""
    images = pictures(6)
    model = Linear(weights(3), torch.tensor([1e3, 0.0, 0.0]))
    labels = torch.zeros(6, dtype=torch.int64)
    result = robust_accuracy(model, images, labels, threat, [FAB(steps=7, restarts=2)])
    assert result.accuracy == 1
    assert result.state.backwards.tolist() == [7 * 2 * 2] * 6
    assert result.state.forwards.tolist() == [1 + 2 * 7 * 2 * 2] * 6


def test_there_is_a_run_for_every_aim_and_restart():
    ranked = torch.tensor([[3, 1, 4, 2], [2, 0, 1, 4]])
    for targets, classes, expected in ((9, 5, 4), (2, 5, 2), (0, 5, 1), (9, 2, 1)):
        search = FAB(targets=targets, restarts=3).for_threat(Linf(0.1), classes)
        assert search.runs == 3 * expected
    search = FAB(targets=2, restarts=2).for_threat(Linf(0.1), 5)
    target_class = [
        search.target_class(number, ranked, torch.empty(2, 0), torch.zeros(2)).tolist() for number in range(search.runs)
    ]
    assert target_class == [[3, 2], [1, 0], [3, 2], [1, 0]]
    assert FAB(targets=0).for_threat(Linf(0.1), 5).target_class(0, ranked, torch.empty(2, 0), torch.zeros(2)) is None


@every
def test_restarts_begin_half_way_out_and_first_runs_at_the_image(threat):
    images, labels = pictures(6, low=0.4, high=0.6), torch.zeros(6, dtype=torch.int64)
    search = FAB(targets=2, restarts=3).for_threat(threat, 3)
    number = torch.arange(6)
    runs = search.init(batch_of(images, labels), number)
    half = torch.full((4,), threat.eps / 2)
    assert torch.equal(runs.x[:2], images[:2])
    torch.testing.assert_close(threat.norm(runs.x - images)[2:], half, rtol=1e-4, atol=0)
    aimed = search.init(batch_of(images, labels, targets=labels + 1), number)
    assert torch.equal(aimed.x[:1], images[:1])
    assert (aimed.x[1:] != images[1:]).flatten(1).any(1).all()


@every
def test_success_grows_with_steps_restarts_and_targets(threat):
    model, images, labels = subject()

    def broken(**options):
        return robust_accuracy(model, images, labels, threat, [FAB(**options)]).broken

    few = broken(steps=1, targets=1)
    for more in ({"steps": 20, "targets": 1}, {"steps": 1, "targets": 1, "restarts": 3}, {"steps": 1, "targets": 2}):
        assert not (few & ~broken(**more)).any()
    assert few.any()


@every
def test_parameters_gather_no_gradient(threat):
    model, images, labels = subject(n=8)
    robust_accuracy(model, images, labels, threat, [FAB(steps=3)])
    assert all(parameter.grad is None for parameter in model.parameters())


class Spoilt(Smooth):
    """Sound logits with a gradient of NaN wherever the first pixel is above a half."""

    def forward(self, images):
        first = images.flatten(1)[:, 0]
        zero = torch.where(first > 0.5, first - first, 1.0)
        return super().forward(images) + 0 * zero.sqrt().double()[:, None]


@every
def test_where_gradients_are_nan_the_example_is_set_aside(threat):
    model, images = Spoilt(), pictures(12)
    labels = model(images).argmax(1)
    sick = images.flatten(1)[:, 0] > 0.5
    batch = batch_of(images, labels, target_class=(labels + 1) % 3)
    search = FAB().for_threat(threat, 3)
    runs = search.init(batch, torch.zeros(12, dtype=torch.int64))
    answer = CountedModel(model).query(runs.x, batch.keys, lambda logits: search.objective(runs, batch, logits))
    search.step(runs, batch, answer)
    assert torch.equal(runs.x.isnan().flatten(1).any(1), sick)
    result = robust_accuracy(model, images, labels, threat, [FAB(steps=3)])
    assert not result.broken[sick].any()


@every
def test_a_dead_gradient_leaves_a_run_where_it_is(threat):
    batch = batch_of(pictures(4), torch.zeros(4, dtype=torch.int64), target_class=torch.ones(4, dtype=torch.int64))
    search = FAB().for_threat(threat, 3)
    runs = search.init(batch, torch.zeros(4, dtype=torch.int64))
    logits = torch.tensor([[1.0, 0.0, 0.0]]).expand(4, -1)
    search.step(runs, batch, Answer(logits, batch.difference(logits), torch.zeros_like(batch.images)))
    assert torch.equal(runs.x, batch.images)


@every
def test_a_targeted_evaluation_goes_for_the_target_in_every_run(threat):
    images = pictures(40, low=0.4, high=0.6)
    model = Linear(weights(3) / 4)
    labels = model(images).argmax(1)
    targets = (labels + 1) % 3
    wide = threat.with_eps(2 * threat.eps)
    result = robust_accuracy(model, images, labels, wide, [FAB(steps=15)], options=RunOptions(targets=targets))
    assert result.broken.any()
    assert (model(result.adversarial[result.broken]).argmax(1) == targets[result.broken]).all()


def test_an_image_that_is_all_wall_stays_in_the_box():
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 3))
    images = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    labels = model(images).argmax(1)
    result = robust_accuracy(model, images, labels, Linf(1.0), [FAB(steps=10)])
    found = result.adversarial[result.broken]
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("options", [{"steps": 0}, {"alpha_max": 1.5}, {"eta": 0.9}, {"beta": 1.0}, {"targets": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        FAB(**options)
