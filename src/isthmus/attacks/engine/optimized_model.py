"""How a model is asked fast and within memory: a scout of the same function, and the batch that fits.

The scout is a copy of the model with batch norm folded into convolutions and everything laid out channels-last, where
that gives the same logits and gradients on a probe; on this model, not in general. Only attacks ask it. The model
itself judges.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from isthmus.attacks.engine import channels_last, input_convolution, rounding
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer, CountedModel
from isthmus.core.errors import ModelError, brief

log = logging.getLogger(__name__)

BATCH_SIZE = 256
"""Examples at a time on a CPU, at most."""

PROBE = 4
"""Examples that a model is tried on before it is attacked."""

PROBING = 96
"""Passes that looking for a faster copy takes at most."""

_COPIES = 12  # images of a row that an attack keeps, with room for temporaries


def wrap(model: nn.Module, bf16: bool, probe: Tensor) -> CountedModel:
    """A counted model whose attacks query an optimised copy, if one agrees with the model on the probe.

    Args:
        bf16: the scout's passes in bfloat16.
        probe: a few images on the model's device.
    """
    asked = CountedModel(model)
    return CountedModel(model, _scout(asked, model, probe), torch.bfloat16 if bf16 else None).took_over(asked)


def _scout(asked: CountedModel, model: nn.Module, probe: Tensor) -> nn.Module | None:
    """A faster copy that gives the model's logits and gradient up to rounding; None where there is none."""
    hooked = bool(model._forward_pre_hooks or model._forward_hooks)  # which a traced copy would not call
    if asked.takes_keys or hooked or not any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return None
    try:
        expected = _answers(asked, probe)
    except ModelError:  # it will fail on clean images too, and is reported then
        return None
    ways: tuple[Callable[[], nn.Module], ...] = (lambda: _rewritten(model, probe), lambda: copy.deepcopy(model))
    failed: Exception | None = None
    for make in ways:
        try:  # somebody else's model may be impossible to copy, to trace or to fold
            faster: nn.Module = make().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            optimized_model = CountedModel(model, faster)
            agreed = _agree(expected, _answers(optimized_model, probe))
            asked.took_over(optimized_model)
            if agreed:
                return faster
        except Exception as error:
            failed = error
    if failed is not None:
        _warn_once(type(model).__name__, brief(failed))
    return None


@cache
def _warn_once(name: str, why: str) -> None:
    log.warning("No faster copy of %s could be made (%s); attacks use the model itself, which is slower.", name, why)


def _rewritten(model: nn.Module, probe: Tensor) -> nn.Module:
    """A copy with batch norm folded, the convolution of the images replaced, and flattened as the memory lies."""
    traced = fx.symbolic_trace(copy.deepcopy(model).eval())
    _allow_any_layout(traced)
    _fold_batch_norm(traced)
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes)
    for node in traced.graph.nodes:
        module = modules.get(str(node.target))
        of_images = node.op == "call_module" and [n.op for n in node.all_input_nodes] == ["placeholder"]
        if (
            of_images
            and calls[node.target] == 1
            and isinstance(module, nn.Conv2d)
            and input_convolution.applies(module)
        ):
            traced.set_submodule(str(node.target), input_convolution.InputConvolution(module))
    with suppress(Exception):  # a model that cannot be run node by node keeps its order
        channels_last.reorder(traced, probe)
    traced.recompile()
    traced.delete_all_unused_submodules()
    type(traced).__call__ = nn.Module.__call__  # type: ignore[method-assign]  # fx's own prints errors that it raises
    return traced


def _allow_any_layout(traced: fx.GraphModule) -> None:
    """Replace ``view``, which fails on channels-last memory, by ``reshape``."""
    for node in traced.graph.nodes:
        shaped = not any(isinstance(value, torch.dtype) for value in (*node.args, *node.kwargs.values()))
        if node.op == "call_method" and node.target in ("view", "view_as") and shaped:
            node.target = node.target.replace("view", "reshape")


def _fold_batch_norm(traced: fx.GraphModule) -> None:
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes)
    for norm in list(traced.graph.nodes):
        before = norm.args[0] if norm.op == "call_module" and norm.args else None
        if not isinstance(modules.get(str(norm.target)), nn.BatchNorm2d) or not isinstance(before, fx.Node):
            continue
        convolution = modules.get(str(before.target))
        if (
            isinstance(convolution, nn.Conv2d)
            and len(before.users) == 1
            and calls[before.target] == calls[norm.target] == 1
        ):
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, modules[str(norm.target)]))
            norm.replace_all_uses_with(before)
            traced.graph.erase_node(norm)


def _answers(asked: CountedModel, probe: Tensor) -> list[Answer]:
    """Logits and gradients on the probe and images like it."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(probe.shape, generator=generator).to(probe.device)
    keys = torch.zeros(len(probe), dtype=torch.int64, device=probe.device)
    return [asked.query(images, keys, lambda z: (z * z).sum(1)) for images in (probe, 1 - probe, noise)]


def _agree(ours: list[Answer], theirs: list[Answer]) -> bool:
    """Whether two models have the same logits and gradients up to rounding."""
    for expected, said in zip(ours, theirs, strict=True):
        pairs = (
            (expected.logits, said.logits, rounding.slack(expected.logits, 1e-4).max()),
            (expected.gradient, said.gradient, 1e-3 * expected.gradient.abs().max()),
        )
        if not all(bool(((a - b).abs() <= rounded).all()) for a, b, rounded in pairs):
            return False
    return True


def is_random(counted_model: CountedModel, examples: Batch, device: torch.device) -> bool:
    """Whether the model answers the first few images differently each time, by more than rounding.

    A model that is random on other images alone is found out later, by
    :meth:`isthmus.attacks.engine.verifier.Verifier.ask_again`.
    """
    batch = examples.take(torch.arange(min(len(examples), PROBE))).to(device)
    return rounding.differ(*(counted_model.logits(batch.images, batch.keys) for _ in range(2)))


def batch_size(counted_model: CountedModel, examples: Batch, device: torch.device) -> int:
    """How many examples fit: the largest power of two whose activations take at most half of the free memory.

    What one example takes is counted on a probe, as the bytes that autograd keeps for the backward pass; so this asks
    for no particular device. At most 256 on a CPU, where larger batches gain nothing, and 2048 elsewhere. Should it
    not fit all the same, the counted model halves it and continues.
    """
    batch = examples.take(torch.arange(min(len(examples), PROBE))).to(device)
    held: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {
        t.untyped_storage().data_ptr()
        for ts in (counted_model.optimized_model.parameters(), counted_model.optimized_model.buffers())
        for t in ts
    }
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), suppress(ModelError):
        counted_model.query(batch.images, batch.keys, lambda logits: batch.ascend("ce", logits))
    each = sum(size for at, size in held.items() if at not in weights) // len(batch)
    each += _COPIES * batch.images[0].numel() * batch.images.element_size()
    fits = _free_memory(device) // 2 // max(each, 1)
    most = BATCH_SIZE if device.type == "cpu" else 8 * BATCH_SIZE
    return min(most, 1 << max(int(fits).bit_length() - 1, 0))


def _free_memory(device: torch.device) -> int:
    """Bytes; on a machine that does not tell, 2 GiB."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024
    return 2 * 1024**3


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """SHA-256 over shapes and contents of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
