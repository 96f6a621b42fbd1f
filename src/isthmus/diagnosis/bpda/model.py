"""A model whose gradient follows its forward pass, whatever its author made of the backward pass.

Backward pass differentiable approximation (Athalye, Carlini & Wagner 2018, arXiv:1802.00420, §4.1) for models that we
have not written. While the wrapped model runs, every torch function that it calls is watched, and

* what cuts the graph does not: ``detach``, ``.data``, ``no_grad``, ``inference_mode``, copies, hooks on gradients and
  on modules;
* a custom ``autograd.Function`` is differentiated through what its ``forward`` does, not by its ``backward``; where
  that cannot be seen into, and keeps the shape, it counts as the identity;
* every torch function whose derivative is zero or undefined almost everywhere has the gradient of a smooth surrogate:
  :mod:`~isthmus.diagnosis.bpda.surrogates` is the registry. Integers and booleans stay what they are, and remember a
  number that has a gradient (:mod:`~isthmus.diagnosis.bpda.relaxed`);
* arrays that come back from numpy have the gradient of the tensor of their shape that went there;
* any other module, custom function or torch function that cuts the graph is the identity if it keeps the shape;
  otherwise its gradient is estimated from its values (:mod:`~isthmus.diagnosis.bpda.estimates`);
* casts to a lower precision than the weights' are left out.

But for those casts the forward pass is what it was. A model that as a whole leaves torch has no gradient. Only the
thread that runs the model is watched.

Here is the watch; :mod:`~isthmus.diagnosis.bpda.gradients` attaches gradients to results, and
:mod:`~isthmus.diagnosis.bpda.torch_patches` sees to what is no torch function.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from isthmus.diagnosis.bpda.gradients import SATURATING, Outside, cast, followed, reinterpreted, unsaturated
from isthmus.diagnosis.bpda.relaxed import each, is_alive, is_relaxed, number, relaxation
from isthmus.diagnosis.bpda.torch_patches import patched, watched

Unsaturated = Literal["gradients", "values"]
_CASTS = {"to", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long"} | {
    *("short", "byte", "char", "bool"),
}
_COPIES = {"tensor", "as_tensor", "asarray", "new_tensor"}
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook"}


class BPDAModel(nn.Module):
    """A model with gradients that follow what it computes; see the module.

    Args:
        model: any module from images to logits; never changed.
        unsaturated: let a gradient through softmax, sigmoid, tanh and their like even where they are flat in float32:
            "gradients" alone, or "values" of softmax and of hard labels as well: they become the logarithms, or what
            the label was chosen from, so that the answer is no longer the model's but orders images as it should.
    """

    def __init__(self, model: nn.Module, *, unsaturated: Unsaturated | None = None) -> None:
        super().__init__()
        self.model, self.unsaturated = model, unsaturated

    def forward(self, images: Tensor, **options: Any) -> Any:
        """What the model answers; the images may be a leaf that it would change in place."""
        if not torch.is_grad_enabled() or watched():  # inside another, which watches already
            return self.model(images.clone(), **options)
        # What the weights can be used with; it is below that where a cast only loses something.
        weights = {x.dtype for x in self.model.parameters() if x.is_floating_point()} or {images.dtype}
        watch = _Watch(self.unsaturated, min(weights, key=lambda dtype: dtype.itemsize))
        with patched(watch.left), watch:
            answer = self.model(images.clone(), **options)
        return number(answer) if is_relaxed(answer) else answer  # integers cannot hand on a gradient


class _Watch(TorchFunctionMode):
    """Of one run of a model; inside ``__torch_function__`` nothing is watched, so that ``detach`` detaches."""

    def __init__(self, unsaturated: Unsaturated | None, precision: torch.dtype) -> None:
        super().__init__()
        self.unsaturated, self.precision = unsaturated, precision
        self.left = Outside()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "__get__" and getattr(function, "__self__", None) is Tensor.data:
            return args[0]
        if name in ("detach", "detach_", "detach_copy"):
            return args[0]
        if name == "_set_grad_enabled":
            return None
        if name in _HOOKS:
            return RemovableHandle(OrderedDict())
        if name in _COPIES and args:
            return self._copied(args[1] if name == "new_tensor" else args[0], function, args, options)
        if isinstance(out := options.get("out"), Tensor) and any(is_alive(x) for x in each(args)):
            return self._into(out, function, types, args, options)
        if name in ("numpy", "__array__") and is_alive(args[0]):
            self.left.leaves(args[0])
            return function(args[0].detach(), *args[1:], **options)
        if self.unsaturated and name in SATURATING:
            return unsaturated(function, args, options, valued=self.unsaturated == "values")
        if name in _CASTS:
            return cast(function, args, options, self.precision, self.unsaturated == "values")
        if name == "view" and is_alive(args[0]) and isinstance(args[1] if len(args) > 1 else None, torch.dtype):
            return reinterpreted(function, args, options)
        return followed(name, function, args, options, valued=self.unsaturated == "values")

    def _into(self, out: Tensor, function: Any, types: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        """A result that is written into a given tensor."""
        rest = {name: value for name, value in options.items() if name != "out"}
        made = self.__torch_function__(function, types, args, rest)
        with torch.no_grad():
            out.resize_(made.shape)
        if not out.is_floating_point():
            out.relaxed = relaxation(made)  # type: ignore[attr-defined]
        return out.copy_(made)

    def _copied(self, source: Any, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A new tensor from a tensor, with its gradient, or from an array."""
        if not isinstance(source, Tensor):
            made = function(*args, **options)
            return self.left.returned(made) if isinstance(source, np.ndarray) else made
        if not is_alive(source):
            return function(*args, **options)
        asked = {key: options[key] for key in ("dtype", "device") if options.get(key) is not None}
        copy = followed("clone", Tensor.clone, (source,), {})
        return cast(Tensor.to, (copy,), asked, self.precision, self.unsaturated == "values") if asked else copy
