"""Calls of other libraries, answered by isthmus: their signatures, and the invariants of their own tests."""

import inspect
import json
import logging
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional

import isthmus
from benchmarks import peers
from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.suites import stages_of
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.checks import Robustness
from isthmus.cli.attack import parse_suite
from isthmus.compat import AutoAttack, benchmark, robustbench
from isthmus.compat.robustbench import FIELDS
from isthmus.core.errors import ConfigError, DataError, FileError, ModelError
from isthmus.data.images import ImageData, Split, as_float
from isthmus.data.loading import load
from isthmus.data.shift.shifted import Shifted
from isthmus.metrics import CORRUPTIONS

BALLS = {"Linf": Linf(0.1), "L2": L2(0.5), "L1": L1(1.5)}
each_norm = pytest.mark.parametrize("norm", BALLS)


@pytest.fixture(scope="module")
def trained():
    """A network of one convolution, and 60 digits that it has not seen, at least two of them misclassified."""
    digits = load("digits")
    images, labels = as_float(digits.train.images), digits.train.labels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
        adam = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(3):
            for rows in torch.randperm(len(images)).split(50):
                adam.zero_grad()
                functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                adam.step()
    images, labels = as_float(digits.test.images), digits.test.labels
    wrong = (model(images).argmax(1) != labels).nonzero().squeeze(1)[:2]
    rows = torch.cat([wrong, torch.arange(len(images))])[:60]
    return model.eval(), images[rows], labels[rows]


def accuracy(model, images, labels):
    return float((model(images).argmax(1) == labels).double().mean())


def small(model, norm="Linf", eps=None, **options):
    """AutoAttack with a tenth of its steps or fewer, and three of its nine target classes."""
    adversary = AutoAttack(model, norm, BALLS[norm].eps if eps is None else eps, verbose=False, **options)
    adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = adversary.fab.n_iter = 8
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = 3
    adversary.apgd.n_restarts, adversary.fab.n_restarts, adversary.square.n_queries = 1, 1, 60
    return adversary


# --- AutoAttack: what its own users rely on ---


@each_norm
def test_images_stay_in_ball_and_box_and_their_accuracy_is_the_robust_accuracy(trained, norm):
    model, x, y = trained
    adversary = small(model, norm)
    x_adv, y_adv = adversary.run_standard_evaluation(x, y, bs=25, return_labels=True)
    assert BALLS[norm].contains(x_adv, x).all()
    assert torch.equal(y_adv, model(x_adv).argmax(1))
    assert accuracy(model, x_adv, y) == adversary.result.accuracy == adversary.clean_accuracy(x_adv, y, bs=7)
    assert adversary.clean_accuracy(x, y) == accuracy(model, x, y) == adversary.result.clean_accuracy
    assert 0 < adversary.result.accuracy < 0.9


def test_misclassified_and_robust_images_are_returned_bit_by_bit(trained):
    model, x, y = trained
    x = x.double() + 1e-12 * (x < 1)
    adversary = small(model)
    x_adv = adversary.run_standard_evaluation(x, y)
    kept = adversary.result.robust | ~adversary.result.correct
    assert (~adversary.result.correct).sum() >= 2
    assert torch.equal(x_adv[kept], x[kept])
    assert x_adv.dtype == torch.float64
    assert (x_adv[~kept] != x[~kept]).flatten(1).any(1).all()


def test_the_batch_size_does_not_matter(trained):
    model, x, y = trained
    found = [small(model).run_standard_evaluation(x, y, bs=bs) for bs in (7, 60)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


@each_norm
def test_robust_accuracy_falls_with_the_radius_and_nothing_changes_at_0(trained, norm):
    model, x, y = trained
    accuracies = []
    for factor in (0, 0.3, 3):
        adversary = small(model, norm, factor * BALLS[norm].eps)
        x_adv = adversary.run_standard_evaluation(x, y)
        accuracies.append(accuracy(model, x_adv, y))
        if factor == 0:
            assert torch.equal(x_adv, x)
            assert adversary.result is None
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] == accuracy(model, x, y)
    assert accuracies[-1] < accuracies[1]


def test_more_attacks_and_more_restarts_find_no_less(trained):
    """Foolbox: the best of several attacks, and an attack repeated, are at least as good as each."""
    model, x, y = trained
    one = small(model, version="custom", attacks_to_run=["apgd-ce"])
    many = small(model, version="custom", attacks_to_run=["apgd-ce", "fab-t", "square"])
    repeated = small(model, version="custom", attacks_to_run=["apgd-ce"])
    repeated.apgd.n_restarts = 3
    one.run_standard_evaluation(x, y)
    for better in (many, repeated):
        better.run_standard_evaluation(x, y)
        assert (better.result.broken | ~one.result.broken).all()


def test_each_attack_alone(trained):
    model, x, y = trained
    adversary = small(model, version="plus")
    found = adversary.run_standard_evaluation_individual(x, y, bs=30, return_labels=True)
    assert list(found) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    for name, (x_adv, y_adv) in found.items():
        assert torch.equal(model(x_adv).argmax(1), y_adv), name
        assert accuracy(model, x_adv, y) == adversary.results[name].accuracy, name
    together = small(model, version="plus").run_standard_evaluation(x, y)
    assert accuracy(model, together, y) <= min(accuracy(model, x_adv, y) for x_adv, _ in found.values())


def test_the_model_is_left_as_it_was(trained):
    model, x, y = trained
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    state = torch.random.get_rng_state()
    small(model).run_standard_evaluation(x, y)
    assert model.training
    model.eval()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None or p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_seeds_decide_random_starts(trained):
    model, x, y = trained
    first, again, other = (small(model, seed=seed).run_standard_evaluation(x, y) for seed in (None, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_its_agreement_with_torchattacks(trained):
    """At torchattacks' budgets: 10 steps where AutoAttack takes 100."""
    if find_spec("torchattacks") is None:
        pytest.skip("compares with torchattacks, which is not installed; 'make setup' installs it")
    model, x, y = trained
    for norm in ("Linf", "L2"):
        eps = BALLS[norm].eps
        theirs = peers.torchattacks().AutoAttack(model, norm=norm, eps=eps, n_classes=10, seed=0)
        for attack in theirs._autoattack.attacks:
            attack.n_queries = 200
        adversary = small(model, norm)
        adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = adversary.fab.n_iter = 10
        adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = 9
        adversary.square.n_queries = 200
        with torch.random.fork_rng():
            theirs_found = theirs(x, y).detach()
        ours = adversary.run_standard_evaluation(x, y)
        assert abs(accuracy(model, ours, y) - accuracy(model, theirs_found, y)) <= 3 / len(x), norm


# --- AutoAttack: how it is called ---


def parameters(call):
    return [name for name in inspect.signature(call).parameters if name != "self"]


def test_arguments_are_those_of_autoattack():
    own = ["model", "norm", "eps", "seed", "verbose", "attacks_to_run", "version", "is_tf_model", "device", "log_path"]
    assert parameters(AutoAttack) == own
    assert parameters(AutoAttack.run_standard_evaluation) == ["x_orig", "y_orig", "bs", "return_labels", "state_path"]
    assert parameters(AutoAttack.run_standard_evaluation_individual) == ["x_orig", "y_orig", "bs", "return_labels"]
    assert parameters(AutoAttack.clean_accuracy) == ["x_orig", "y_orig", "bs"]


@pytest.mark.parametrize(
    ("version", "norm", "suite"),
    [
        ("standard", "Linf", "standard"),
        ("standard", "L2", "standard"),
        ("standard", "L1", "standard-l1"),
        ("rand", "Linf", "rand"),
    ],
)
def test_versions_are_isthmuss_suites(version, norm, suite):
    adversary = AutoAttack(nn.Flatten(), norm, 0.1, version=version)
    assert stages_of([adversary._attack(name) for name in adversary.attacks_to_run]) == stages_of(suite)


def test_the_budgets_of_plus_and_custom():
    plus = AutoAttack(nn.Flatten(), version="plus")
    stages = [stage.attack for stage in stages_of([plus._attack(name) for name in plus.attacks_to_run])]
    assert [attack.name for attack in stages] == ["apgd", "apgd", "fab", "square", "apgd", "fab"]
    assert [attack.restarts for attack in stages] == [5, 5, 5, 1, 1, 1]
    assert [getattr(attack, "targets", 0) for attack in stages] == [0, 0, 0, 0, 9, 9]
    custom = AutoAttack(nn.Flatten(), version="custom", attacks_to_run=["apgd-dlr"])
    assert custom._attack("apgd-dlr")["restarts"] == 5
    custom.set_version("standard")
    assert custom.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"norm": "linf"}, "Did you mean 'Linf'"),
        ({"eps": 8}, "Did you mean 8/255"),
        ({"version": "standart"}, "Did you mean 'standard'"),
        ({"attacks_to_run": ["apgd-ce"]}, "version='custom'"),
        ({"version": "custom", "attacks_to_run": ["apgd-cd"]}, "Did you mean 'apgd-ce'"),
        ({"is_tf_model": True}, "PyTorch"),
        ({"device": "cuda"}, "the model is on cpu"),
        ({"device": "gpu"}, "such as 'cpu'"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_what_cannot_be_honoured_says_what_to_do(options, fault):
    with pytest.raises(ConfigError, match=fault):
        AutoAttack(nn.Linear(2, 2), **options)


def test_options_that_do_not_exist_are_refused(trained):
    adversary = AutoAttack(trained[0])
    with pytest.raises(ConfigError, match="n_restarts"):
        adversary.apgd.restarts = 2
    with pytest.raises(ConfigError, match="attacks_to_run is empty"):
        AutoAttack(trained[0], version="custom").run_standard_evaluation(*trained[1:])
    adversary.apgd.n_iter = 0
    with pytest.raises(ConfigError, match="steps"):
        adversary.run_standard_evaluation(*trained[1:])


def test_functions_are_models_too(trained):
    model, x, y = trained
    direct = small(model).run_standard_evaluation(x, y)
    for function in (model.forward, model.__call__, lambda images: model(images)):
        assert torch.equal(small(function, device="cpu").run_standard_evaluation(x, y), direct)
    with pytest.raises(ModelError, match="An instance|Pass an instance"):
        AutoAttack(nn.Linear)
    with pytest.raises(ModelError, match=r"nn\.Module"):
        AutoAttack(3)


def test_arrays_and_labels_that_do_not_fit(trained):
    model, x, y = trained
    x_adv, y_adv = small(model).run_standard_evaluation(x.numpy(), y.tolist(), return_labels=True)
    assert torch.equal(model(x_adv).argmax(1), y_adv)
    with pytest.raises(DataError, match="must lie in"):
        small(model, eps=0).run_standard_evaluation(2 * x, y)


def test_an_evaluation_resumes_from_its_file(trained, tmp_path):
    model, x, y = trained
    path = tmp_path / "state.safetensors"
    first, second = small(model), small(model)
    x_adv = first.run_standard_evaluation(x, y, state_path=path)
    again = second.run_standard_evaluation(x, y, state_path=str(path))
    assert torch.equal(x_adv, again)
    assert second.result.forward_passes - first.result.forward_passes <= 100  # only the adversarial images again
    with pytest.raises(FileError):
        small(model, version="rand").run_standard_evaluation(x, y, state_path=path)


def test_accuracies_are_logged(trained, tmp_path, caplog, capsys):
    model, x, y = trained
    adversary = AutoAttack(
        model, eps=0.1, version="custom", attacks_to_run=["apgd-ce", "square"], log_path=tmp_path / "l"
    )
    adversary.apgd.n_iter, adversary.square.n_queries = 5, 50
    with caplog.at_level(logging.INFO, logger="isthmus"):
        adversary.run_standard_evaluation(x, y)
    lines = (tmp_path / "l").read_text().splitlines()
    assert [record.getMessage() for record in caplog.records] == lines
    by_attack = adversary.result.by_attack
    assert f"initial accuracy: {by_attack['clean']:.2%}" in lines
    assert f"robust accuracy after APGD-CE: {by_attack['apgd-ce']:.2%}" in lines
    assert f"robust accuracy after SQUARE: {by_attack['square']:.2%}" in lines
    assert capsys.readouterr().out == ""
    adversary.log_path = tmp_path / "missing" / "l"
    with pytest.raises(FileError, match="log_path"):
        adversary.run_standard_evaluation_individual(x, y)


# --- the peers' names of attacks ---


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("apgd-ce", {"name": "apgd"}),
        ("apgd-dlr", {"name": "apgd", "loss": "dlr"}),
        ("apgd-t", {"name": "apgd", "loss": "dlr", "targets": 9}),
        ("fab-t", {"name": "fab", "targets": 9}),
        ("fab", {"name": "fab"}),
        ("square", {"name": "square"}),
    ],
)
def test_names_of_attacks_are_accepted_in_every_suite(name, meaning):
    budget = "queries" if name == "square" else "steps"
    assert stages_of(name) == stages_of([name]) == stages_of([meaning])
    assert stages_of(f"{name}:7") == stages_of([{"name": name, budget: 7}]) == stages_of([{**meaning, budget: 7}])


def test_they_are_accepted_in_yaml_by_a_check_and_on_the_command_line(trained):
    assert stages_of(parse_suite("apgd-ce, apgd-t,fab-t,square:5000")) == stages_of("standard")
    names = [{"name": "apgd-t", "steps": 5}, "fab-t:5"]
    (targeted, fab) = Robustness(attacks=names).attacks
    assert (targeted.loss, targeted.targets, targeted.steps, fab.targets, fab.steps) == ("dlr", 9, 5, 9, 5)
    model, x, y = trained
    by_attack = robust_accuracy(model, x, y, "linf:0.1", ["apgd-ce:5", "apgd-t:5", "fab-t:5", "square:50"]).by_attack
    assert list(by_attack) == ["clean", "apgd-ce", "apgd-dlr-t", "fab", "square"]
    with pytest.raises(ConfigError, match="Did you mean 'apgd-t'"):
        stages_of("apgd-tt")


# --- RobustBench ---


def test_arguments_are_those_of_robustbench():
    assert parameters(benchmark) == [
        *("model", "n_examples", "dataset", "threat_model", "to_disk", "model_name", "data_dir"),
        *("corruptions_data_dir", "device", "batch_size", "eps", "log_path", "preprocessing", "aa_state_path"),
    ]


@pytest.fixture
def quick(monkeypatch):
    """AutoAttack with small budgets, also where ``benchmark`` makes it."""
    original = AutoAttack.set_version

    def smaller(self, version="standard"):
        original(self, version)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 5
        self.square.n_queries = 50

    monkeypatch.setattr(AutoAttack, "set_version", smaller)


def test_benchmark_returns_two_fractions_and_writes_robustbenchs_fields(trained, quick, tmp_path, monkeypatch):
    model = trained[0]
    monkeypatch.chdir(tmp_path)
    found = benchmark(model, 50, "digits", "Linf", True, "Ours2026Own", eps=16 / 255, batch_size=50, device="cpu")
    clean, robust = found
    test = load("digits").test
    x, y = as_float(test.images[:50]), test.labels[:50]
    assert clean == accuracy(model, x, y)
    assert 0 < robust < clean
    assert found.result.accuracy == robust
    assert torch.equal(found.result.examples.images, x)
    written = json.loads((tmp_path / "model_info" / "digits" / "Linf" / "Ours2026Own.json").read_text())
    assert list(written) == [*FIELDS, "isthmus"]
    assert written["dataset"] == "digits"
    assert written["eps"] == "16/255"
    assert written["clean_acc"] == str(round(100 * clean, 2))
    assert written["autoattack_acc"] == str(round(100 * robust, 2))
    assert written["link"] is None
    assert written["isthmus"]["n_examples"] == 50
    assert written["isthmus"]["interval_95"] == [found.result.interval.low, found.result.interval.high]


def test_an_entry_that_exists_keeps_what_is_not_measured(trained, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model_info" / "digits" / "L2" / "Ours.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": "Our paper", "venue": "arXiv", "reported": "62.5", "clean_acc": "1.0"}))
    clean, _ = benchmark(trained[0], 20, "digits", "L2", True, "Ours", eps=0.5)
    written = json.loads(path.read_text())
    assert (written["name"], written["venue"], written["reported"]) == ("Our paper", "arXiv", "62.5")
    assert written["clean_acc"] == str(round(100 * clean, 2))
    assert written["eps"] == "0.5"
    path.write_text("[]")
    with pytest.raises(FileError, match="an object"):
        benchmark(trained[0], 20, "digits", "L2", True, "Ours", eps=0.5)


def test_a_model_in_train_mode_is_warned_of(trained, quick):
    """RobustBench's own test of ``benchmark``."""
    model = trained[0]
    model.train()
    try:
        with pytest.warns(UserWarning, match="train mode"):
            benchmark(model, n_examples=1, dataset="digits", threat_model="Linf", eps=8 / 255, batch_size=100)
        assert model.training
    finally:
        model.eval()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({}, "needs eps"),
        ({"threat_model": "Linff", "eps": 0.1}, "Did you mean 'Linf'"),
        ({"threat_model": "corruptions_3d"}, "give 'corruptions'"),
        ({"threat_model": "corruptions", "eps": 0.1}, "no eps"),
        ({"threat_model": "corruptions", "dataset": "digits"}, "isthmus.audit"),
        ({"dataset": "imagenet", "eps": 0.1}, "5,000 fixed images"),
        ({"dataset": "cifar1000", "eps": 0.1}, "Did you mean 'cifar100'"),
        ({"data_dir": "./data", "eps": 0.1}, "ISTHMUS_DATA"),
        ({"preprocessing": "Res256Crop224", "eps": 0.1}, "inside the model"),
        ({"to_disk": True, "eps": 0.1}, "model_name"),
    ],
)
def test_what_benchmark_cannot_honour_says_what_to_do(trained, options, fault):
    with pytest.raises(ConfigError, match=fault):
        benchmark(trained[0], **options)


class FirstPixel(nn.Module):
    """Reads the class from an image's first pixel."""

    def forward(self, x):
        return functional.one_hot((x[:, 0, 0, 0] * 25.5).round().long().clamp(0, 9), 10).float()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_accuracy_under_corruptions_is_the_mean_over_all(monkeypatch, name):
    """On clean images the pixel is right; it is under every second corruption, but for one image at severity 5."""
    labels = torch.arange(20) % 10

    def split(moved):
        images = torch.zeros(20, 3, 32, 32, dtype=torch.uint8)
        images[:, 0, 0, 0] = 10 * ((labels + moved) % 10)
        return Split(images, labels)

    def corrupted(options):
        assert (options["name"], options["path"]) == (f"{name}_c", "somewhere")
        moved = torch.full((20,), CORRUPTIONS.index(options["corruption"]) % 2)
        moved[0] += options["severity"] == 5
        return Shifted("corrupted", tuple("0123456789"), split(moved), torch.arange(20), 20, "examples")

    clean = ImageData.of(name, split(0), split(0), tuple("0123456789"))
    monkeypatch.setattr(robustbench, "load_data", lambda given: clean)
    monkeypatch.setattr(robustbench, "load_shifted", corrupted)
    options = {"threat_model": "corruptions", "corruptions_data_dir": "somewhere"}
    found = benchmark(FirstPixel().eval(), 10, dataset=name, **options)
    assert found[0] == 1
    assert found[1] == pytest.approx((8 - 8 / 5 / 10) / 15)
    assert found.result is None


def test_compat_is_found_from_isthmus():
    assert isthmus.compat.AutoAttack is AutoAttack
