"""A classifier as a list of operations, read off its torch.fx trace; or the layer that cannot be bounded.

Layers: linear, convolution, ReLU, leaky ReLU, tanh, sigmoid, average and max pooling, flatten, batch norm, addition,
and normalisation by constants. The mean mode of a bottleneck is its backbone, the means of its encoder and its
classifier.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

from isthmus.certificates import rounding
from isthmus.certificates.activations import Activation, LeakyReLU, SShaped
from isthmus.certificates.operations import (
    Averaging,
    Convolution,
    Dense,
    MaxPool,
    Operation,
    Reshaping,
    Scaling,
    Shape,
    Sum,
)
from isthmus.certificates.regions import Box
from isthmus.core.errors import ModelError, brief
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.preprocessing import Preprocessed

_PROBES = 4


class CannotCertify(ModelError):
    """The model has a layer, or a behaviour, for which there are no sound bounds here.

    Attributes:
        layer: what and where it is.
    """

    def __init__(self, layer: str) -> None:
        super().__init__(f"cannot certify: {layer}")
        self.layer = layer


@dataclass(frozen=True)
class Node:
    """One operation and the positions of its inputs; ``operation`` is None for the images."""

    name: str
    operation: Operation | None
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Network:
    """Operations in an order in which each follows its inputs; the first node is the images, the last the logits."""

    nodes: tuple[Node, ...]

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].shape[0]

    @property
    def layers(self) -> int:
        """Number of operations."""
        return len(self.nodes) - 1

    @property
    def activations(self) -> int:
        """Number of inputs of activations, the numbers that are bounded one by one."""
        return sum(math.prod(node.shape) for node in self.nodes if isinstance(node.operation, Activation))

    def intervals(self, images: Box) -> list[Box]:
        """Bounds of every node by interval arithmetic (IBP; Gowal et al. 2018, arXiv:1810.12715)."""
        boxes: list[Box] = []
        for node in self.nodes:
            operation = node.operation
            boxes.append(images if operation is None else operation.interval([boxes[i] for i in node.inputs]))
        return boxes


def read(model: nn.Module, images: Float[Tensor, "n c h w"]) -> Network:
    """The network of a model.

    The result is tested on a few images and on noise: the model's logits must be within the bounds of the rounding.

    Args:
        model: from images in [0, 1] to logits, in float32. Weights, flags and the global random state stay as they are.
        images: for their shape, and for the test.

    Raises:
        CannotCertify: a layer, a type or a behaviour without sound bounds.
    """
    device = device_of(model, images)
    few = images[:_PROBES].to(device, torch.float32)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(few.shape, generator=generator).to(device)
    with preserve_state(model, device, 0), torch.no_grad():
        _check_precision(model)
        if getattr(model, "takes_keys", False):
            raise CannotCertify(f"{type(model).__name__}, whose predictions are random")
        network = _translated(_plain(model), torch.cat([few[:1], few[:1]]))
        for probe in (few, 1 - few, noise):
            _check_agreement(network, model, probe)
    return network


def _check_precision(model: nn.Module) -> None:
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_floating_point() and value.dtype != torch.float32:
            raise CannotCertify(f"{name}, which is {str(value.dtype).removeprefix('torch.')}; float32 is needed")


def _check_agreement(network: Network, model: nn.Module, images: Tensor) -> None:
    """Raise unless the model's logits are within the rounding of the network's."""
    logits = model(images.clone())
    exact = images.double()
    low, high = network.intervals(Box(exact, exact))[-1]
    within = logits.shape == low.shape and logits.dtype == torch.float32
    if not within or not bool(((logits >= low) & (logits <= high)).all()):
        raise CannotCertify(f"{type(model).__name__}, whose logits are not those of its traced layers")


# --- from modules to operations ---


def _plain(model: nn.Module) -> nn.Module:
    """A module that computes the same logits and can be traced."""
    if isinstance(model, Preprocessed) and model.size is None and not _hooked(model):
        return nn.Sequential(_Normalization(model.mean, model.std), _plain(model.model)).eval()
    if isinstance(model, Bottleneck) and not _hooked(model):
        if type(model).forward is not Bottleneck.forward or model.classifier is None:
            raise CannotCertify("the classifier of the bottleneck, which is made from its backward encoder")
        return nn.Sequential(model.normalize, model.backbone, _means(model), model.classifier).eval()
    return model


def _means(model: Bottleneck) -> nn.Module:
    """The layer from features to the means of the codes."""
    layer, dim = model.encoder.project, model.encoder.dim
    if isinstance(layer, nn.Identity):
        return layer
    if type(layer) is not nn.Linear or _hooked(layer):
        raise CannotCertify(f"encoder.project ({type(layer).__name__})")
    means = nn.Linear(layer.in_features, dim, bias=layer.bias is not None, device=layer.weight.device)
    means.weight.data = layer.weight.data[:dim]
    if layer.bias is not None:
        means.bias.data = layer.bias.data[:dim]
    return means


class _Normalization(nn.Module):
    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = nn.Parameter(mean[None], False), nn.Parameter(std[None], False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def _translated(model: nn.Module, probe: Tensor) -> Network:
    """The operations of a module, from its trace; the probe is two images."""
    for name, module in model.named_modules():
        if _hooked(module):
            raise CannotCertify(f"{name or type(module).__name__} (a forward hook)")
    try:
        traced = fx.GraphModule(model, fx.Tracer().trace(model))
        values = _Values(traced)
        values.run(probe.clone())
    except Exception as error:  # a user's model may be impossible to trace
        raise CannotCertify(f"{type(model).__name__}, which torch.fx cannot trace ({brief(error, 120)})") from None
    return _Translation(traced, values.found).network()


class _Values(fx.Interpreter):
    """Runs a trace and keeps every value, with the gradient of nothing."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        # a copy, since later operations may work in place
        self.found[n] = value.clone() if isinstance(value, Tensor) else value
        return value


_PASSES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_FLAT = {"view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "clone", "detach", "float", "to"}
_FACTS = {"size", "dim", "numel", "type"}
_ATTRIBUTES = {"shape", "dtype", "device", "ndim"}
_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv, torch.relu_, functional.relu_}


class _Translation:
    """From the nodes of a trace to operations.

    Args:
        traced: the module and its graph.
        values: what each node of the graph computes for two images.
    """

    def __init__(self, traced: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
        self.graph, self.values = traced.graph, values
        self.modules = dict(traced.named_modules())
        self.nodes: list[Node] = []
        self.places: dict[fx.Node, int] = {}  # of values that depend on the images

    def network(self) -> Network:
        for node in self.graph.nodes:
            if node.op == "placeholder":
                if self.nodes:
                    continue  # a further argument, with its default
                self.places[node] = self._add("images", None, ())
            elif node.op == "output":
                return self._finished(node)
            elif any(source in self.places for source in node.all_input_nodes) and not self._is_fact(node):
                self.places[node] = self._translate(node)
        raise AssertionError("a trace ends with its output")

    def _finished(self, node: fx.Node) -> Network:
        (logits,) = node.args
        place = self.places.get(logits) if isinstance(logits, fx.Node) else None
        if place is None:
            raise CannotCertify("the output, which is no tensor of logits")
        network = Network(tuple(self.nodes[: place + 1]))
        shape = network.nodes[-1].shape
        if len(shape) != 1 or shape[0] < 2:
            raise CannotCertify(f"the output of shape {shape} for each image; two logits or more are needed")
        return network

    def _add(self, name: str, operation: Operation | None, inputs: tuple[int, ...], of: fx.Node | None = None) -> int:
        shape = tuple(self.values[of].shape[1:]) if of is not None else tuple(self._images().shape[1:])
        self.nodes.append(Node(name, operation, inputs, shape))
        return len(self.nodes) - 1

    def _images(self) -> Tensor:
        images: Tensor = next(self.values[node] for node in self.graph.nodes if node.op == "placeholder")
        return images

    def _is_fact(self, node: fx.Node) -> bool:
        """Whether a node is a shape or type, which does not depend on the values of the images."""
        if node.op == "call_method":
            return node.target in _FACTS and not isinstance(self.values[node], Tensor)
        return node.target is getattr and node.args[1] in _ATTRIBUTES

    def _translate(self, node: fx.Node) -> int:
        value = self.values[node]
        if not isinstance(value, Tensor) or not len(value) == 2:
            raise self._cannot(node)
        self._check_in_place(node)
        if node.op == "call_module":
            return self._module(node)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if node.op == "call_method" and name not in _METHODS | _FLAT:
            raise self._cannot(node)
        if node.op == "call_function" and not _is_torch(node.target):
            raise self._cannot(node)
        return self._call(node, name.rstrip("_"))

    def _module(self, node: fx.Node) -> int:
        module = self.modules[str(node.target)]
        make = _MODULES.get(type(module))
        if type(module) in _PASSES:
            return self._source(node)
        if type(module) in (nn.Flatten, nn.Unflatten):
            return self._reshaped(node)
        if make is None or len(node.args) != 1 or node.kwargs:
            raise self._cannot(node)
        operation = make(module, self._shape(node.args[0]), tuple(self.values[node].shape[1:]))
        if operation is None:
            raise self._cannot(node)
        return self._add(str(node.target), operation, (self._source(node),), node)

    def _call(self, node: fx.Node, name: str) -> int:
        """A function or a method."""
        if name in _FLAT:
            return self._reshaped(node)
        if name == "dropout" and not _argument(node, 2, "training", True):
            return self._source(node)
        if name in ("add", "iadd", "sub", "isub", "mul", "imul", "truediv", "itruediv", "div"):
            return self._arithmetic(node, name.removeprefix("i").replace("truediv", "div"))
        operation = self._function(node, name)
        if operation is None:
            raise self._cannot(node)
        return self._add(node.name, operation, (self._source(node),), node)

    def _function(self, node: fx.Node, name: str) -> Operation | None:
        """An operation of one input; its other arguments must be those of a module."""
        given = [self._constant(argument) for argument in node.args[1:]]
        named = {key: self._constant(argument) for key, argument in node.kwargs.items() if key != "inplace"}
        shapes = self._shape(node.args[0]), tuple(self.values[node].shape[1:])
        if name == "relu":
            return LeakyReLU()
        if name in ("tanh", "sigmoid") and not given and not named:
            return SShaped(name)
        if name == "leaky_relu":
            return _leaky(given[0] if given else named.get("negative_slope", 0.01))
        if name == "linear":
            return _dense(given[0], given[1] if len(given) > 1 else named.get("bias"), *shapes)
        if name == "conv2d":
            options = dict(zip(("weight", "bias", "stride", "padding", "dilation", "groups"), given, strict=False))
            return _convolution(options | named, *shapes)
        if name in ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"):
            kind = {"max_pool2d": nn.MaxPool2d, "avg_pool2d": nn.AvgPool2d, "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d}
            return _MODULES[kind[name]](kind[name](*given, **named), *shapes)
        return None

    def _arithmetic(self, node: fx.Node, name: str) -> int:
        """Addition of two layers; addition, subtraction, multiplication and division with a constant."""
        first, second = (*node.args, None)[:2]
        if len(node.args) != 2 or node.kwargs:
            raise self._cannot(node)
        places = [isinstance(each, fx.Node) and each in self.places for each in (first, second)]
        if all(places):
            if name != "add" or self._shape(first) != self._shape(second):
                raise self._cannot(node)
            return self._add(node.name, Sum(), (self._place(first), self._place(second)), node)
        constant = self._constant(second if places[0] else first)
        shape = self._shape(first if places[0] else second)
        number = _broadcast(constant, shape, self._images().device)
        if number is None or tuple(self.values[node].shape[1:]) != shape or (name == "div" and not places[0]):
            raise self._cannot(node)
        one, zero = torch.ones_like(number), torch.zeros_like(number)
        scale, bias = {
            "add": (one, number),
            "sub": (one, -number) if places[0] else (-one, number),
            "mul": (number, zero),
            "div": (1 / number, zero),
        }[name]
        operation = Scaling(shape, shape, bias, 8, scale)
        return self._add(node.name, operation, (self._place(first if places[0] else second),), node)

    def _reshaped(self, node: fx.Node) -> int:
        """The same numbers in the same order."""
        place, after = self._source(node), self.values[node]
        before = self.values[node.all_input_nodes[0]]
        if after.dtype != torch.float32 or before.numel() != after.numel():
            raise self._cannot(node)
        if not torch.equal(before.reshape(2, -1), after.reshape(2, -1)):
            raise self._cannot(node)
        if before.shape == after.shape:
            return place
        operation = Reshaping(tuple(before.shape[1:]), tuple(after.shape[1:]))
        return self._add(node.name, operation, (place,), node)

    def _source(self, node: fx.Node) -> int:
        """Place of the first argument."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source not in self.places:
            raise self._cannot(node)
        return self.places[source]

    def _place(self, source: Any) -> int:
        return self.places[source]

    def _shape(self, source: Any) -> Shape:
        return tuple(self.values[source].shape[1:]) if isinstance(source, fx.Node) else ()

    def _constant(self, argument: Any) -> Any:
        """An argument that does not depend on the images."""
        if isinstance(argument, fx.Node):
            if argument in self.places:
                raise CannotCertify(f"{argument.name}, which multiplies or selects by values of the images")
            return self.values[argument]
        if isinstance(argument, tuple | list):
            return tuple(self._constant(each) for each in argument)
        return argument

    def _check_in_place(self, node: fx.Node) -> None:
        """Raise if an operation changes a value in place that is used again."""
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        by_name = node.op == "call_method" and str(node.target).endswith("_")
        given = bool(getattr(module, "inplace", False)) or bool(node.kwargs.get("inplace")) or by_name
        if not (given or node.target in _IN_PLACE):
            return
        source: Any = node.args[0]
        while isinstance(source, fx.Node):
            if len(source.users) > 1 or source.op == "placeholder":
                raise CannotCertify(f"{node.name}, which changes a value in place that is used again")
            if self.places.get(source) not in [self.places.get(s) for s in source.all_input_nodes]:
                reshaping = self.nodes[self.places[source]].operation if source in self.places else None
                if not isinstance(reshaping, Reshaping):
                    return
            source = source.args[0] if source.args else None

    def _cannot(self, node: fx.Node) -> CannotCertify:
        if node.op == "call_module":
            return CannotCertify(f"{node.target} ({type(self.modules[str(node.target)]).__name__})")
        return CannotCertify(f"{node.name} ({getattr(node.target, '__name__', node.target)})")


_METHODS = {"relu", "relu_", "tanh", "sigmoid", "add", "add_", "sub", "mul", "div"}


def _is_torch(function: Any) -> bool:
    """Whether a function is torch's own or an operator, rather than one that only has such a name."""
    name = getattr(function, "__name__", "")
    homes = (torch, functional, operator, torch._C._nn)
    return any(getattr(home, name, None) is function for home in homes)


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _broadcast(constant: Any, shape: Shape, device: torch.device) -> Tensor | None:
    """A constant for one example in float64; None if it is none, or differs between examples."""
    if isinstance(constant, bool) or not isinstance(constant, int | float | Tensor):
        return None
    number = torch.as_tensor(constant, dtype=torch.float64, device=device)
    if number.dim() > len(shape):
        if number.dim() > len(shape) + 1 or len(number) != 1:
            return None
        number = number[0]
    try:
        return number.expand(shape).contiguous() if bool(number.isfinite().all()) else None
    except RuntimeError:
        return None


Make = Callable[[Any, Shape, Shape], Operation | None]


def _bias(bias: Tensor | None, weight: Tensor) -> Tensor:
    return weight.new_zeros(len(weight)) if bias is None else bias.detach().double()


def _dense(weight: Tensor, bias: Tensor | None, before: Shape, after: Shape) -> Operation:
    weight = weight.detach().double()
    return Dense(before, after, _bias(bias, weight), weight.shape[1], weight)


def _convolution(options: dict[str, Any], before: Shape, after: Shape) -> Operation | None:
    weight = options["weight"].detach().double()
    pair = {
        name: _pair(options.get(name, default)) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    if len(before) != 3 or any(value is None for value in pair.values()):
        return None
    bias = _bias(options.get("bias"), weight)[:, None, None]
    terms = weight[0].numel()
    stride, padding, dilation = (pair[name] or (0, 0) for name in ("stride", "padding", "dilation"))
    return Convolution(before, after, bias, terms, weight, stride, padding, dilation, int(options.get("groups", 1)))


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) in (1, 2):
        return int(value[0]), int(value[-1])
    return None


def _leaky(slope: float) -> Operation | None:
    exact = float(torch.tensor(slope, dtype=torch.float32))
    return LeakyReLU(exact) if 0 <= exact <= 1 else None


def _conv2d(module: nn.Conv2d, before: Shape, after: Shape) -> Operation | None:
    padding: Any = module.padding
    if module.padding_mode != "zeros":
        return None
    if padding == "valid":
        padding = 0
    elif padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
        if any(d * (k - 1) % 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)):
            return None
    options = {"weight": module.weight, "bias": module.bias, "stride": module.stride, "padding": padding}
    return _convolution(options | {"dilation": module.dilation, "groups": module.groups}, before, after)


def _batch_norm(module: Any, before: Shape, after: Shape) -> Operation | None:
    """Batch norm with running statistics, as one affine function."""
    if module.running_mean is None or module.running_var is None:
        return None
    mean, variance = module.running_mean.double(), module.running_var.double()
    scale = 1 / (variance + module.eps).sqrt()
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    shape = (-1, *[1] * (len(before) - 1))
    shift = -mean * scale
    # as terms of their own, since float32 may round each of them
    size = shift.abs() if module.bias is None else shift.abs() + module.bias.detach().double().abs()
    bias = shift if module.bias is None else shift + module.bias.detach().double()
    return _Normalized(before, after, bias.view(shape), 16, scale.view(shape), size.view(shape))


@dataclass(frozen=True)
class _Normalized(Scaling):
    """Batch norm, whose bias is a difference of larger numbers: ``size`` bounds their magnitude."""

    size: Tensor

    def error(self, box: Box) -> Tensor:
        """Largest rounding error of each output."""
        total = self.apply(box.magnitude + rounding.TINY, absolute=True) + self.size
        return rounding.rate(self.terms) * total + 2 * self.terms * rounding.TINY


def _max_pool(module: nn.MaxPool2d, before: Shape, after: Shape) -> Operation | None:
    options = [_pair(getattr(module, name)) for name in ("kernel_size", "stride", "padding", "dilation")]
    if module.ceil_mode or module.return_indices or len(before) != 3 or None in options:
        return None
    kernel, stride, padding, dilation = (pair or (0, 0) for pair in options)
    return MaxPool(before, after, kernel, stride, padding, dilation)


def _averaging(module: nn.Module, before: Shape, after: Shape) -> Operation | None:
    if len(before) != 3 or (getattr(module, "divisor_override", None) or 1) < 0:  # then the weights are negative
        return None
    zero = torch.zeros((), dtype=torch.float64)
    return Averaging(before, after, zero, before[1] * before[2], module)


def _relu(module: nn.ReLU, before: Shape, after: Shape) -> Operation:
    return LeakyReLU()


_MODULES: dict[type[nn.Module], Make] = {
    nn.Linear: lambda m, before, after: _dense(m.weight, m.bias, before, after),
    nn.Conv2d: _conv2d,
    nn.ReLU: _relu,
    nn.LeakyReLU: lambda m, before, after: _leaky(m.negative_slope),
    nn.Tanh: lambda m, before, after: SShaped("tanh"),
    nn.Sigmoid: lambda m, before, after: SShaped("sigmoid"),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _averaging,
    nn.AdaptiveAvgPool2d: _averaging,
}
