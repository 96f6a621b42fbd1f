from __future__ import annotations

from collections import Counter

import torch

from isthmus.core.randomness import example_keys
from isthmus.data.autoaugment.operations import KIND, KINDS, STRENGTHS, VARIANTS, draw
from isthmus.data.autoaugment.policies import IMAGENET, PUBLISHED, RELEASED


def test_the_tables_have_the_sizes_and_the_overlap_of_their_sources() -> None:
    assert (len(PUBLISHED), len(RELEASED)) == (25, 20 + 35 + 40)
    assert sum(pair in RELEASED for pair in PUBLISHED) == 20
    # the first five of each search are the paper's
    assert PUBLISHED[:5] == RELEASED[:5]
    assert PUBLISHED[5:10] == RELEASED[20:25]
    assert PUBLISHED[10:15] == RELEASED[55:60]
    assert PUBLISHED[20:] == RELEASED[5:10]


def test_operations_are_known_with_probabilities_in_tenths_and_levels_to_nine() -> None:
    for name, probability, level in (operation for pair in PUBLISHED + RELEASED for operation in pair):
        assert name in KINDS[1:]
        assert probability * 10 in range(10)
        assert level in range(10)
    count = Counter(name for pair in RELEASED for name, _, _ in pair)
    assert count["cutout"] == 3
    assert count["equalize"] == max(count.values())


def test_the_list_for_imagenet_is_that_of_the_papers_table_9() -> None:
    """Facts of the table: 25 rows of which five are printed twice; nothing is shifted, brightened or cut out."""
    assert (len(IMAGENET), len(set(IMAGENET))) == (25, 20)
    names = Counter(name for pair in IMAGENET for name, _, _ in pair)
    assert names["equalize"] == max(names.values())
    assert not {"translate_x", "translate_y", "shear_y", "brightness", "cutout", "posterize", "solarize"} & set(names)
    for name, probability, level in (operation for pair in IMAGENET for operation in pair):
        assert name in KINDS
        assert round(probability * 10) in range(0, 11, 2)
        assert level in range(10)


def test_the_levels_for_imagenet_are_those_of_googles_code_for_tpus() -> None:
    assert [STRENGTHS["posterize_to"](level) for level in range(10)] == [int(level / 10.0 * 4) for level in range(10)]
    assert [STRENGTHS["solarize_from"](level) for level in range(10)] == [
        int(level / 10.0 * 256) for level in range(10)
    ]


def test_operations_happen_as_often_as_their_probabilities_say() -> None:
    n = 200_000
    drawn = draw(example_keys(0, torch.arange(n)), "published")
    for stage in (0, 1):
        for name in KINDS[1:]:
            expected = sum(pair[stage][1] for pair in PUBLISHED if pair[stage][0] == name) / len(PUBLISHED)
            found = float((drawn.kinds[:, stage] == KIND[name]).double().mean())
            assert abs(found - expected) < 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-12
        assert abs(float((drawn.variants[:, stage] < VARIANTS // 2).double().mean()) - 0.5) < 0.01


def test_a_draw_is_a_function_of_the_key() -> None:
    keys = example_keys(5, torch.arange(1000))
    whole = draw(keys, "released")
    some = torch.tensor([7, 3, 999, 3])
    assert all(torch.equal(a, b) for a, b in zip(whole.at(some), draw(keys[some], "released"), strict=True))
