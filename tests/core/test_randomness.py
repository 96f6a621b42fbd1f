"""Keyed randomness: right distributions, independent of batch, order and position, and one name per purpose."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import isthmus
from isthmus.core import randomness

KEYS = randomness.example_keys(0, torch.arange(3000))
NUMBER = 7481641200563956638  # of "pgd/target_class"
PACKAGE = Path(isthmus.__file__).parent
WITHOUT_A_NAME = {"core/randomness.py", "data/order.py"}  # the seed of example_keys; the fixed order of the data


@cache
def folds() -> list[tuple[str, ast.Call]]:
    """The calls of ``fold`` and ``folded`` in the package, each with its file."""
    return list(_folds())


def _folds() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("fold", "randomness.fold") or called.endswith(".folded"):
                yield path.relative_to(PACKAGE).as_posix(), node


def names_in(node: ast.AST) -> set[tuple[str, int, int]]:
    """String literals, with line and column; those of an inner call of ``fold`` belong to the outer one too."""
    constants = [each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return {(each.value, each.lineno, each.col_offset) for each in constants}


def places() -> dict[str, set[tuple[str, int, int]]]:
    """Where each name is folded into keys."""
    found: dict[str, set[tuple[str, int, int]]] = {}
    for path, call in folds():
        for name, line, column in set[tuple[str, int, int]]().union(*map(names_in, call.args)):
            found.setdefault(name, set()).add((path, line, column))
    return found


def splitmix(bits: int) -> int:
    """The finaliser as published, on 64-bit unsigned numbers."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> shift)) * factor % 2**64
    return bits ^ (bits >> 31)


def test_it_is_the_published_hash():
    gamma, key, part = 0x9E3779B97F4A7C15, 0x0123456789ABCDEF, 2**64 - 17
    folded = splitmix((key ^ splitmix((part + gamma) % 2**64)) + gamma & 2**64 - 1)
    keys = torch.tensor([key, 5])
    new = randomness.fold(keys, -17)
    assert int(new[0]) % 2**64 == folded
    assert keys.tolist() == [key, 5]
    drawn = [splitmix(splitmix((folded + count * gamma) % 2**64)) >> 40 for count in (1, 2, 3)]
    assert randomness.uniform(new, (3,))[0].tolist() == [bits / 2**24 for bits in drawn]


def test_distributions():
    assert stats.kstest(randomness.uniform(KEYS, (50,)).flatten().numpy(), "uniform").pvalue > 1e-4
    assert stats.kstest(randomness.normal(KEYS, (50,)).flatten().numpy(), "norm").pvalue > 1e-4


def test_no_correlation_between_neighbouring_keys_counters_or_seeds():
    values = randomness.normal(KEYS, (40,)).double()
    other = randomness.normal(randomness.example_keys(1, torch.arange(3000)), (40,)).double()
    for a, b in ((values[:-1], values[1:]), (values[:, :-1], values[:, 1:]), (values, other)):
        assert abs((a * b).mean()) < 5 / a.numel() ** 0.5


@given(st.lists(st.integers(0, 2999), min_size=1, max_size=20), st.integers(1, 9))
def test_an_example_gets_its_numbers_in_any_batch(indices, count):
    whole = randomness.normal(KEYS, (count,))
    assert torch.equal(randomness.normal(KEYS[torch.tensor(indices)], (count,)), whole[torch.tensor(indices)])


def test_uniform_numbers_lie_in_the_half_open_interval():
    values = randomness.uniform(KEYS, (200,))
    assert 0 <= values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1


def test_keys_differ_by_every_part_and_by_its_place():
    index = torch.arange(4)
    keys = [randomness.fold(index, *parts) for parts in ((1, 2), (2, 1), (1,), (2,), (1, 2, 0))]
    assert len({int(k) for key in keys for k in key}) == 20


def test_odd_counts_and_shapes():
    assert randomness.normal(KEYS[:2], (3, 5)).shape == (2, 3, 5)
    assert randomness.normal(KEYS[:2], (1,)).shape == (2, 1)
    assert torch.isfinite(randomness.normal(KEYS, (101,))).all()


def test_a_name_stands_for_the_same_number_everywhere():
    assert randomness.number("pgd/target_class") == NUMBER
    index = torch.arange(4)
    assert torch.equal(randomness.fold(index, "pgd/target_class"), randomness.fold(index, NUMBER))


def test_every_stream_has_a_name():
    for path, call in folds():
        purpose = call.args[0 if ast.unparse(call.func).endswith(".folded") else 1]
        named = isinstance(purpose, ast.Starred) or bool(names_in(purpose))
        assert named or path in WITHOUT_A_NAME, f"{path}:{call.lineno} folds in a number without a name"


def test_every_name_has_one_place():
    found = places()
    assert len(found) > 40
    for name, where in found.items():
        assert re.fullmatch(r"[a-z0-9_]+/[a-z0-9_]+", name), name
        assert len(where) == 1, f"{name} is used at {sorted(where)}; share a function if the numbers must repeat"


def test_names_collide_neither_with_each_other_nor_with_counters():
    numbers = [randomness.number(name) for name in places()]
    assert len(set(numbers)) == len(numbers)
    assert min(map(abs, numbers)) > 2**20
