"""Memorisation: closed forms of what is measured, who is chosen, and what does not fit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import mannwhitneyu
from torch import nn

import isthmus
from isthmus import metrics
from isthmus.attacks.threats import Linf
from isthmus.audits import AuditOptions, request
from isthmus.checks import Memorisation
from isthmus.checks.context import Context
from isthmus.checks.trained_on import InMemory, TrainedOn
from isthmus.core import provenance, registry, results
from isthmus.core.config import component
from isthmus.core.errors import DataError, ModelError
from isthmus.core.types import CheckResult, Status
from isthmus.data.images import Split
from isthmus.data.loading import load
from isthmus.data.on_demand import FileSplit
from isthmus.data.order import balanced_like
from isthmus.report.sections import memorisation as page
from tests.checks.metric_helpers import plain


class Reads(nn.Module):
    """Four logits, as they stand in the image."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, images):
        return images.flatten(1)[:, :4] * self.scale


def written(n, right, seed=0, classes=4):
    """Images in which ``right`` of ``n`` have their label's pixel brightest."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = 0.5 * random.random((n, 1, 2, 2))
    said = labels.copy()
    said[random.permutation(n)[right:]] += 1
    images.reshape(n, 4)[np.arange(n), said % 4] = 0.6 + 0.4 * random.random(n)
    return torch.as_tensor(images, dtype=torch.float32), torch.as_tensor(labels)


def context(training, audited, scale=10.0, stochastic=None, batch_size=64):
    return Context(
        Reads(scale),
        *audited,
        num_classes=4,
        threat=Linf(0.1),
        stochastic=stochastic,
        trained_on=None if training is None else TrainedOn(InMemory(*training), "abc"),
        batch_size=batch_size,
    )


def run(ctx, **options):
    return component("checks", {"name": "memorisation", "resamples": 200, **options}).run(ctx)


def test_gap_and_auroc_are_what_they_are_said_to_be():
    result = run(context(written(400, 400), written(400, 300, seed=1)))
    found, arrays = result.metrics, result.arrays
    assert plain(found.one("training_accuracy", mode="mean")) == metrics.proportion(400, 400)
    assert plain(found.one("accuracy", mode="mean")) == metrics.proportion(300, 400)
    assert found.one("generalisation_gap", mode="mean").value == pytest.approx(0.25)
    assert found.one("generalisation_gap", mode="mean").interval.method == "Newcombe, independent"
    new, old = arrays["nll"], arrays["training_nll"]
    assert found.one("loss_gap", mode="mean").value == pytest.approx(new.mean() - old.mean())
    assert (
        found.one("loss_gap", mode="mean").interval.low
        < found.one("loss_gap", mode="mean").value
        < found.one("loss_gap", mode="mean").interval.high
    )
    assert found.one("membership_auroc", mode="mean").value == pytest.approx(mannwhitneyu(new, old).statistic / 400**2)
    assert result.status is Status.WARN
    assert "the gap is above 5.0%" in result.reason


def test_the_gap_is_the_advantage_of_taking_right_answers_for_members():
    """Yeom et al. 2018: true less false positive rate, by counting."""
    result = run(context(written(300, 290), written(200, 120, seed=1)))
    taken = {side: result.arrays[name] for side, name in (("member", "training_correct"), ("new", "correct"))}
    advantage = taken["member"].mean() - taken["new"].mean()
    assert result.metrics.one("generalisation_gap", mode="mean").value == pytest.approx(advantage)


def test_who_generalises_perfectly_passes_and_the_loss_tells_nothing():
    result = run(context(written(1000, 900), written(1000, 900, seed=1)))
    assert result.status is Status.PASS
    low, high = (getattr(result.metrics.one("membership_auroc", mode="mean").interval, end) for end in ("low", "high"))
    assert low < 0.5 < high
    assert "not shown to be above 5.0%, nor the AUROC to be above 60.0%" in result.reason


def test_a_loss_can_tell_where_accuracy_cannot():
    """All are right, training images more surely: no gap, but an AUROC of 1 and a warning."""
    images, labels = written(100, 100)
    sure = torch.where(images >= 0.6, 1.0, 0.0)
    result = run(context((sure, labels), (images, labels)))
    assert result.metrics.one("generalisation_gap", mode="mean").value == 0.0
    assert result.metrics.one("membership_auroc", mode="mean").value == 1.0
    assert "exact" in result.metrics.one("membership_auroc", mode="mean").interval.method
    assert result.status is Status.WARN
    assert "the AUROC is above 60.0%" in result.reason
    assert "the gap is above" not in result.reason
    assert run(context((sure, labels), (images, labels)), membership=1.0).status is Status.PASS


def test_a_stochastic_mode_is_measured_and_can_warn():
    class Forgets(Reads):
        """In training images, which are marked, it reads what stands there; of others nothing."""

        def forward(self, images):
            return super().forward(images) * images[:, 0, 0, 0, None].ne(0)

    training, audited = written(200, 200), written(200, 200, seed=1)
    audited[0][:, 0, 0, 0] = 0
    result = run(context(training, audited, scale=0.0, stochastic=Forgets(10.0)))
    assert result.metrics.one("generalisation_gap", mode="mean").value == 0.0
    assert result.metrics.one("generalisation_gap", mode="stochastic").value > 0.5
    assert "the gap in stochastic mode" in result.reason
    table = page.section({"m": result}).blocks[0]
    assert [row[0] for row in table.rows] == ["m", "m (stochastic)"]
    headline = page.section({"m": result}).headlines["m"]
    assert (headline.metric, headline.note) == (
        result.metrics.one("generalisation_gap", mode="stochastic"),
        "stochastic mode",
    )


def test_without_training_examples_it_is_skipped_and_says_what_to_do():
    result = run(context(None, written(10, 10)))
    assert result.status is Status.SKIPPED
    assert "`trained_on`" in result.reason
    assert page.section({"m": result}).blocks == ()


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.integers(1, 80),
)
def test_as_many_of_each_class_are_shown_as_are_audited(training, audited, most):
    labels, wanted = torch.tensor(training), torch.tensor(audited)
    whole = balanced_like(labels, wanted)
    assert len(set(whole.tolist())) == len(whole)
    counts = [min(training.count(k), audited.count(k)) for k in range(6)]
    assert labels[whole].bincount(minlength=6).tolist() == counts
    assert balanced_like(labels, wanted, most).tolist() == whole[:most].tolist()


def test_fewer_keep_the_shares_of_classes():
    labels = torch.arange(3000) % 3
    audited = torch.tensor([0] * 600 + [1] * 300)
    for most in (30, 90, 450):
        chosen = labels[balanced_like(labels, audited, most)].bincount(minlength=3)
        assert chosen.tolist() == [most * 2 // 3, most // 3, 0]


def test_training_images_are_read_a_batch_at_a_time_and_no_number_depends_on_it():
    class Counted(InMemory):
        """Notes how many it is asked for at once."""

        def select(self, indices):
            sizes.append(len(indices))
            return super().select(indices)

    sizes: list[int] = []
    bottleneck = isthmus.bottleneck(nn.Flatten(), 4, "vib", dim=2, features=4).eval()
    audited = written(100, 80)
    outcomes = []
    for size in (7, 100):
        stochastic = isthmus.audits.classifier.adopt(bottleneck, audited[0]).stochastic
        ctx = context(None, audited, stochastic=stochastic, batch_size=size)
        ctx = Context(**{**vars(ctx), "trained_on": TrainedOn(Counted(*written(90, 90, seed=2)), "abc")})
        outcomes.append(run(ctx))
    assert sizes == [7] * 12 + [6, 90]
    one, other = outcomes
    assert one.arrays["stochastic_training_nll"] == pytest.approx(other.arrays["stochastic_training_nll"], abs=1e-5)
    assert np.array_equal(one.arrays["training_index"], other.arrays["training_index"])


def test_bytes_and_floats_are_the_same_images():
    images, labels = written(64, 60)
    whole = (images * 255).round()
    split = Split(whole.to(torch.uint8), labels)
    audited = written(64, 50, seed=1)
    ctx = context((whole / 255, labels), audited)
    other = Context(**{**vars(ctx), "trained_on": TrainedOn(split, "abc")})
    assert run(ctx).metrics == run(other).metrics


def test_images_in_files_are_read_as_they_are_shown(tmp_path):
    images, labels = written(6, 6)
    for place, image in enumerate((images * 255).round().to(torch.uint8)):
        Image.fromarray(image[0].numpy()).convert("RGB").save(tmp_path / f"{place}.png")
    names = tuple(f"{place}.png" for place in range(6))
    rows = torch.arange(6)
    files = FileSplit(tmp_path, names, torch.ones_like(rows), rows=rows, labels=labels, size=2, shorter=2)

    def coloured(grey):
        return grey.expand(-1, 3, -1, -1).contiguous()

    audited = coloured(written(6, 4, seed=1)[0]), labels
    in_memory = coloured((images * 255).round() / 255), labels
    ctx = context(in_memory, audited)
    from_files = run(Context(**{**vars(ctx), "trained_on": TrainedOn(files, "abc")}))
    assert from_files.metrics == run(ctx).metrics
    known = request.training_examples(files, (3, 2, 2))
    assert known.examples is files
    assert known.hash != request.training_examples(files.labelled(labels.flip(0)), (3, 2, 2)).hash


class Missing(Reads):
    """No answer to images with a black last pixel."""

    def forward(self, images):
        return torch.where(images.flatten(1)[:, 3:] == 0, torch.nan, super().forward(images))


def test_answers_that_are_not_finite_are_wrong_have_no_loss_and_are_counted():
    training, audited = written(100, 100), written(80, 80, seed=1)
    training[0].flatten(1)[:3, 3] = 0
    audited[0].flatten(1)[:2, 3] = 0
    ctx = context(training, audited)
    result = run(Context(**{**vars(ctx), "model": Missing(10.0)}))
    assert result.status is Status.WARN
    assert "are NaN or infinite count as wrong and have no loss: 5" in result.reason
    shown = len(result.arrays["training_index"])
    assert result.metrics.one("training_accuracy", mode="mean").value == pytest.approx((shown - 3) / shown)
    assert result.metrics.one("loss_gap", mode="mean").n == min(shown - 3, 78)
    assert np.isnan(result.arrays["training_nll"]).sum() == 3
    assert page.section({"m": result}).blocks
    training[0].flatten(1)[:, 3] = 0
    with pytest.raises(ModelError, match="In mean mode no training image has finite logits"):
        run(Context(**{**vars(context(training, audited)), "model": Missing(10.0)}))


def test_few_examples_have_no_interval_rather_than_a_wrong_one():
    result = run(context(written(1, 1), written(1, 1, seed=1)))
    assert result.metrics.one("membership_auroc", mode="mean").value is None
    assert result.metrics.one("loss_gap", mode="mean").interval is None
    assert result.status is Status.PASS
    assert "AUROC" not in result.reason
    assert page.section({"m": result}).blocks


def test_a_data_set_is_named_where_nobody_gave_the_examples():
    data = load("digits")
    images, labels = data.test.images[:50].float() / 255, data.test.labels[:50]
    ctx = Context(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), images, labels, 10, Linf(0.1))
    result = run(ctx, data="digits", images=20)
    assert result.metrics.one("training_accuracy", mode="mean").n == 20
    assert result.details["known"] == len(data.train)
    assert "trained_on" not in result.details
    assert component("checks", "memorisation:digits") == component("checks", {"name": "memorisation", "data": "digits"})
    assert component("checks", "memorisation:digits").plain()["data"]["name"] == "digits"
    with pytest.raises(DataError, match=r"has 10 classes and images of 1×8×8, and the audit 4 classes .* 1×2×2"):
        run(context(None, written(10, 10)), data="digits")


def test_nothing_in_common_is_said():
    images, _ = written(10, 10)
    with pytest.raises(DataError, match="No training example has the class"):
        run(context((images[:4], torch.zeros(4, dtype=torch.long)), (images, torch.ones(10, dtype=torch.long))))


def test_the_page_is_drawn_from_what_is_stored(tmp_path):
    result = run(context(written(100, 100), written(100, 70, seed=1)))
    results.save_result(tmp_path, result)
    stored = results.load_result(tmp_path, "memorisation")
    other = run(context(written(100, 80), written(100, 80, seed=1)))
    section = page.section({"a": stored, "b": other})
    assert section == page.section({"a": result, "b": other})
    table, curves, spreads = section.blocks
    assert table.reading.startswith("a has the widest train-test gap, 30.0 points")
    assert [series.name for series in curves.series] == ["a", "b"]
    assert f"{100 * result.metrics.one('membership_auroc', mode='mean').value:.1f}% for a" in curves.reading
    for series in spreads.series:
        assert sum(series.y) == pytest.approx(1.0)
    assert list(section.columns) == ["train-test gap", "AUROC of membership"]
    assert section.headlines["a"].metric == result.metrics.one("generalisation_gap", mode="mean")
    skipped = CheckResult(check="memorisation", status=Status.SKIPPED, reason="no")
    assert page.section({"a": skipped}).columns == {}


class TestInAnAudit:
    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    @pytest.fixture
    def data(self):
        return load("digits")

    @pytest.fixture
    def audited(self, data):
        return data.test.images[:60].float() / 255, data.test.labels[:60]

    def test_it_is_asked_by_default_where_the_training_examples_are_known(self, model, audited, data, monkeypatch):
        monkeypatch.setattr(request, "DEFAULT_CHECKS", ("accuracy",))
        assert list(isthmus.audit(model, *audited, "linf:0.1").results) == ["accuracy"]
        both = isthmus.audit(model, *audited, "linf:0.1", options=AuditOptions(trained_on=data.train))
        assert list(both.results) == ["accuracy", "memorisation"]
        assert both.record.trained_on == isthmus.data.images.fingerprint(data.train)

    def test_stored_results_are_used_again_for_the_same_examples_alone(self, model, audited, data, tmp_path):
        def made(trained_on, *checks):
            options = AuditOptions(trained_on=trained_on)
            found = isthmus.audit(model, *audited, "linf:0.1", checks, out=tmp_path / "a", options=options)
            return [result.provenance["date"] for result in found.results.values()]

        facts, clock = provenance.collect(), iter(range(100))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(provenance, "collect", lambda: {**facts, "date": next(clock)})
            checks = ("accuracy", "memorisation")
            assert made(None, *checks) == [0, 0]
            assert made(None, *checks) == [0, 0]
            assert made(data.train, *checks) == [0, 2]  # it was skipped before
            assert made(None, "accuracy") == [0]
            assert made(data.train, *checks) == [0, 2]
            half = data.train.select(torch.arange(700))
            assert made(half, *checks) == [0, 5]
            assert made((half.images / 255, half.labels), *checks) == [0, 6]
        assert not (tmp_path / "a-1").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d, r"pair of images and labels, or a split .* got ImageData. Give its `train`"),
            (lambda d: 3, "got int"),
            (lambda d: (d.train.images.int(), d.train.labels), "training images must be floats"),
            (lambda d: (d.train.images / 255, d.train.labels[:5]), "training labels must be .* one for each of"),
            (lambda d: (d.train.images / 255, d.train.labels + 1), "training labels.* with 10 classes"),
            (lambda d: (d.train.images / 255, d.train.labels.float()), "training labels must be integers"),
            (
                lambda d: (torch.rand(5, 1, 4, 4), d.train.labels[:5]),
                "1×4×4, and the audited ones are 1×8×8",
            ),
        ],
    )
    def test_what_does_not_fit_is_explained(self, model, audited, data, change, message):
        with pytest.raises(DataError, match=message):
            isthmus.audit(model, *audited, "linf:0.1", [], options=AuditOptions(trained_on=change(data)))


def test_memorised_noise_is_seen_in_a_run_and_its_own_data_are_shown(tmp_path, caplog):
    """Labels drawn at random can only be learned by heart: a network that does is at chance on new images."""
    from isthmus.audits.target import ModelSource, audit_run

    recipe = {
        "name": "noise",
        "data": {"name": "digits", "train_limit": 120, "test_limit": 100, "random_labels": 1},
        "model": {"backbone": {"name": "mlp", "hidden": [128]}, "dim": 16},
        "objective": "deterministic",
        "training": {"epochs": 100, "batch_size": 32},
    }
    trained = isthmus.train(recipe, out=tmp_path / "noise", progress=False)
    audit_run(ModelSource(trained.path), checks=["memorisation"])
    found = results.load_result(trained.path / "audit", "memorisation")
    assert found.details["known"] == 120
    assert found.metrics.one("training_accuracy", mode="mean").value > 0.9
    assert found.metrics.one("accuracy", mode="mean").value < 0.3
    assert found.status is Status.WARN

    audit_run(ModelSource(trained.path, data="digits", out=tmp_path / "other"), checks=["memorisation"])
    assert results.load_result(tmp_path / "other" / "audit", "memorisation").status is Status.SKIPPED

    info = trained.info()
    trained.write_info({**info, "data": {**info["data"], "fingerprint": "0" * 64}})
    audit_run(ModelSource(trained.path, out=tmp_path / "moved"), checks=["memorisation"])
    assert results.load_result(tmp_path / "moved" / "audit", "memorisation").status is Status.SKIPPED
    assert "is not as it was when" in caplog.text


def test_its_name_is_its_file():
    assert registry.load("checks", "memorisation") is Memorisation
