"""Random numbers keyed by example: the same key gives the same numbers in any batch, order, process or device.

A counter-based generator: every number is a hash of (key, counter), where a key is itself a hash of whatever
identifies the example (seed, index, attack, restart, ...). The hash is the 64-bit finaliser of splitmix64
(Steele, Lea & Flood 2014), computed in wrapping int64 arithmetic, which gives the same bits on every device.

A stream of random numbers has a named purpose: ``fold(keys, "pgd/target_class")``, of the form "module/purpose".
Counters (steps, restarts, draws, epochs) are folded in as integers, after the name. A test checks that no two places
in the package use one name by accident and that no two names collide.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor


def _constant(bits: int) -> Tensor:
    return torch.tensor(bits, dtype=torch.int64, device="cpu")  # a tensor, since torch converts a number at every use


_GAMMA = _constant(-7046029254386353131)  # 0x9E3779B97F4A7C15 as int64
_MIX_1 = _constant(-4658895280553007687)  # 0xBF58476D1CE4E5B9
_MIX_2 = _constant(-7723592293110705685)  # 0x94D049BB133111EB
_LOW = _constant((1 << 24) - 1)
_CHUNK = 2**16  # pairs of normal numbers per block, so that temporaries stay in the cache
_SHIFTS = {by: (_constant(by), _constant((1 << (64 - by)) - 1)) for by in (27, 30, 31, 40)}


def _shift_right(bits: Tensor, by: int, out: Tensor | None = None) -> Tensor:
    places, mask = _SHIFTS[by]
    shifted = torch.bitwise_right_shift(bits, places, out=out)
    return shifted.bitwise_and_(mask)  # torch's >> keeps the sign; the mask makes it logical


def _mix(bits: Tensor, spare: Tensor | None = None) -> Tensor:
    """In place; ``spare`` is a tensor of the same shape to write into."""
    spare = _shift_right(bits, 30, spare)
    bits.bitwise_xor_(spare).mul_(_MIX_1)
    bits.bitwise_xor_(_shift_right(bits, 27, spare)).mul_(_MIX_2)
    return bits.bitwise_xor_(_shift_right(bits, 31, spare))


@lru_cache(maxsize=4096)
def _mixed(part: int | str) -> Tensor:
    return _mix(_constant(number(part) if isinstance(part, str) else part) + _GAMMA)


def number(name: str) -> int:
    """The int64 that a name stands for in :func:`fold`: the first eight bytes of its SHA-256, big-endian."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def fold(keys: Int[Tensor, "*batch"], *parts: int | str | Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """New keys from old ones and further identifying names and numbers, one after another (order matters)."""
    for part in parts:
        mixed = _mix(part.to(keys.device, torch.int64) + _GAMMA) if isinstance(part, Tensor) else _mixed(part)
        keys = _mix((keys ^ mixed).add_(_GAMMA))
    return keys


def example_keys(seed: int, indices: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Keys of examples from the run's seed and their index in the data set."""
    return fold(torch.full_like(indices, seed, dtype=torch.int64), indices)


def _bits(keys: Tensor, count: int) -> Tensor:
    counters = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device).mul_(_GAMMA)
    bits = keys.unsqueeze(-1) + counters
    spare = torch.empty_like(bits)
    return _mix(_mix(bits, spare), spare)


def uniform(keys: Int[Tensor, "*batch"], shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Uniform float32 numbers in [0, 1), ``shape`` many for each key: result is keys.shape + shape."""
    bits = _bits(keys, math.prod(shape))
    return _shift_right(bits, 40, bits).float().mul_(2.0**-24).reshape(*keys.shape, *shape)


def normal(keys: Int[Tensor, "*batch"], shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Standard normal float32 numbers, ``shape`` many for each key (Box-Muller, both halves used)."""
    count = math.prod(shape)
    half = (count + 1) // 2
    found = torch.empty(keys.numel(), half, 2, device=keys.device)
    size = max(1, _CHUNK // max(half, 1))
    for start in range(0, keys.numel(), size):
        part = slice(start, start + size)
        bits = _bits(keys.flatten()[part], half)
        radius = _shift_right(bits, 40).double().add_(0.5).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
        angle = bits.bitwise_and_(_LOW).double().mul_(2.0 * math.pi * 2.0**-24)
        found[part, :, 0] = radius * angle.cos()
        found[part, :, 1] = radius.mul_(angle.sin_())
    return found.flatten(1)[:, :count].reshape(*keys.shape, *shape)
