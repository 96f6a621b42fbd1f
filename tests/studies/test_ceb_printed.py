"""The printed numbers hang together: what one row of a table says follows from the others."""

import subprocess
import sys

import numpy as np
import pytest

from isthmus.metrics import CORRUPTIONS, mean_corruption_error
from isthmus.studies.ceb import printed

MODELS = pytest.mark.parametrize("model", printed.IMAGENET.values(), ids=printed.IMAGENET)


def test_there_are_twelve_models_in_pairs_of_a_bottleneck_and_its_baseline():
    assert len(printed.IMAGENET) == 12
    models = [*printed.RESNET_50, *printed.RESNET_152]
    for ours, baseline in zip(models[::2], models[1::2], strict=True):
        assert ours.name == f"CEB-{baseline.name}"
        assert ours.rho is not None
        assert baseline.rho is None
        assert (ours.depth, ours.width, ours.autoaugment) == (baseline.depth, baseline.width, baseline.autoaugment)


@MODELS
def test_mce_and_average_follow_from_the_rows_of_the_corruptions(model):
    assert tuple(model.corruptions) == CORRUPTIONS
    assert mean_corruption_error(model.corruptions) == pytest.approx(model.mce, abs=0.001)
    assert mean_corruption_error(model.corruptions, baseline=None) == pytest.approx(model.average, abs=0.001)


@MODELS
def test_errors_are_fractions_to_a_tenth_of_a_percent(model):
    values = np.array([model.clean, model.mce, model.average, model.imagenet_a, model.pgd_l2, model.pgd_linf])
    values = np.append(values, list(model.corruptions.values()))
    assert ((values > 0.1) & (values < 1)).all()
    np.testing.assert_array_equal(values, values.round(3))


def test_ceb_beats_its_baseline_on_clean_images_and_in_mce_as_the_paper_says():
    models = [*printed.RESNET_50, *printed.RESNET_152]
    for ours, baseline in zip(models[::2], models[1::2], strict=True):
        for number in ("clean", "mce", "average", "imagenet_a", "pgd_l2", "pgd_linf"):
            assert getattr(ours, number) < getattr(baseline, number), (ours.name, number)


def test_what_is_said_of_the_tables_stands_in_them():
    assert all(1 - model.pgd_linf < 0.01 and 1 - model.pgd_l2 < 0.01 for model in printed.RESNET_50)
    narrow, wide = printed.IMAGENET["152"], printed.IMAGENET["152x2"]
    assert narrow.mce < wide.mce
    assert narrow.clean == wide.clean
    plain, augmented = printed.IMAGENET["CEB-152 without AutoAugment"], printed.IMAGENET["CEB-152"]
    assert printed.IMAGENET["CEB-152x2"].pgd_linf < plain.pgd_linf < augmented.pgd_linf
    low, high = printed.PGD_TOP_1_WITHOUT_AUTOAUGMENT.values()
    assert 187 < high / low < 191  # printed "187 times", from numbers before rounding


def test_the_gap_to_the_new_cifar_test_set_is_the_printed_one():
    gap = printed.CEB_62X7.clean - printed.CEB_62X7.cifar10_1
    assert gap == pytest.approx(0.039, abs=0.0005)
    assert printed.CEB_62X7.mce < printed.CEB_62X7_RHO_5.mce


def test_the_deterministic_model_lies_within_the_printed_range_and_madry_s_two_numbers_stay_apart():
    low, high = printed.CEB_28X10_CLEAN
    assert low <= printed.CIFAR["Det."].clean <= high
    assert (printed.MADRY.linf, printed.MADRY.l2) == (0.458, 0.457)


def test_every_number_has_its_source():
    said = [*printed.FASHION, *printed.CIFAR_28X10_SAID, *printed.CIFAR_62X7_SAID, *printed.IMAGENET_SAID]
    everything = [*printed.IMAGENET.values(), *printed.CIFAR.values(), *said]
    assert all(each.source for each in everything)
    assert all(statement.unit for statement in said if statement.value is not None)


def test_printed_numbers_need_no_torch():
    code = "import sys, isthmus.studies.ceb.printed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
