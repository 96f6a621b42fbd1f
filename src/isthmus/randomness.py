"""Random numbers keyed by example: the same key gives the same numbers in any batch, order, process or device.

A counter-based generator: every number is a hash of (key, counter), where a key is itself a hash of whatever
identifies the example (seed, index, attack, restart, ...). The hash is the 64-bit finaliser of splitmix64
(Steele, Lea & Flood 2014), computed in wrapping int64 arithmetic, which torch does alike everywhere.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def _constant(bits: int) -> Tensor:
    return torch.tensor(bits, dtype=torch.int64, device="cpu")  # a tensor, since torch converts a number at every use


_GAMMA = _constant(-7046029254386353131)  # 0x9E3779B97F4A7C15 as int64
_MIX_1 = _constant(-4658895280553007687)  # 0xBF58476D1CE4E5B9
_MIX_2 = _constant(-7723592293110705685)  # 0x94D049BB133111EB
_SHIFTS = {by: (_constant(by), _constant((1 << (64 - by)) - 1)) for by in (27, 30, 31, 40)}


def _shift_right(bits: Tensor, by: int) -> Tensor:
    places, mask = _SHIFTS[by]
    return (bits >> places).bitwise_and_(mask)  # torch's >> keeps the sign; the mask makes it logical


def _mix(bits: Tensor) -> Tensor:
    """In place."""
    bits.bitwise_xor_(_shift_right(bits, 30)).mul_(_MIX_1)
    bits.bitwise_xor_(_shift_right(bits, 27)).mul_(_MIX_2)
    return bits.bitwise_xor_(_shift_right(bits, 31))


def fold(keys: Int[Tensor, "*batch"], *parts: int | Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """New keys from old ones and further identifying numbers, one after another (order matters)."""
    for part in parts:
        number = torch.as_tensor(part, dtype=torch.int64, device=keys.device)
        keys = _mix((keys ^ _mix(number + _GAMMA)).add_(_GAMMA))
    return keys


def example_keys(seed: int, indices: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Keys of examples from the run's seed and their index in the data set."""
    return fold(torch.full_like(indices, seed, dtype=torch.int64), indices)


def _bits(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape)
    counters = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device) * _GAMMA
    return _mix(_mix(keys.unsqueeze(-1) + counters)).reshape(*keys.shape, *shape)


def uniform(keys: Int[Tensor, "*batch"], shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Uniform float32 numbers in [0, 1), ``shape`` many for each key: result is keys.shape + shape."""
    return _shift_right(_bits(keys, shape), 40).float() * 2.0**-24


def normal(keys: Int[Tensor, "*batch"], shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Standard normal float32 numbers, ``shape`` many for each key (Box-Muller, both halves used)."""
    count = math.prod(shape)
    half = (count + 1) // 2
    bits = _bits(keys, (half,))
    radius = (-2.0 * torch.log((_shift_right(bits, 40).double() + 0.5) * 2.0**-24)).sqrt()
    angle = (bits & 0xFFFFFF).double() * (2.0 * math.pi * 2.0**-24)
    pairs = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
    return pairs.flatten(-2)[..., :count].float().reshape(*keys.shape, *shape)
