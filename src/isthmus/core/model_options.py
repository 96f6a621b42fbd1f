"""Options of the model: its backbone, the bottleneck around it, and layers conditioned on label hypotheses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from isthmus.core.config import Component, Frozen, Positive, component

StdOffset = Annotated[float, Field(ge=-20, le=20)]
"""The offset in σ = softplus(s + offset)."""


class HypothesisInjection(Frozen):
    """How a label hypothesis enters a network.

    Attributes:
        inject: "concatenate" one-hot labels to the features (the paper's way), "embed" labels as learned vectors (for
            many classes) that are concatenated, or "project" the features by a matrix for each label. A projection to
            one number with nothing after it is an ordinary linear classifier.
        embedding: size of a learned label vector, for ``inject: embed``.
    """

    inject: Literal["concatenate", "embed", "project"] = "concatenate"
    embedding: Positive = 32


class HypothesisLayers(HypothesisInjection):
    """Layers after the backbone that are conditioned on label hypotheses; see :func:`isthmus.hypothesis`.

    Attributes:
        hidden: sizes of fully connected layers with ReLU, before the one that ends in a number. Without any, and with
            ``inject: project``, the model is an ordinary linear classifier.
        eliminate: number of hidden layers after which label information is eliminated; None means all but the last.
    """

    hidden: tuple[Positive, ...] = (512, 256, 128)
    eliminate: Positive | None = None

    @property
    def eliminated(self) -> int:
        """Number of hidden layers after which label information is eliminated."""
        return max(1, len(self.hidden) - 1) if self.eliminate is None else self.eliminate

    @model_validator(mode="after")
    def _depends_on_the_image(self) -> HypothesisLayers:
        if not self.hidden and self.inject != "project":
            raise ValueError(
                f"without hidden layers, inject={self.inject} adds each label's number to the image's, so that all "
                "images get one prediction; give hidden, or inject: project"
            )
        return self

    @model_validator(mode="after")
    def _one_of_the_layers(self) -> HypothesisLayers:
        if self.eliminate is not None and self.eliminate > len(self.hidden):
            raise ValueError(f"eliminate={self.eliminate} exceeds the {len(self.hidden)} hidden layers")
        return self


class Whiten(Frozen):
    """Grey images, whitened by the principal components of the training images; see
    :class:`isthmus.models.whitening.Whitening`.

    Attributes:
        components: number of principal components.
        epsilon: added to every eigenvalue.
        size: scale images to this many pixels per side first; None does not scale them.
    """

    name: Literal["zca"] = "zca"
    components: Positive = 400
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-5
    size: Positive | None = None


def _whitening(given: object) -> object:
    return Whiten() if given == "zca" else given


class BottleneckOptions(Frozen):
    """The densities of a bottleneck; see :func:`isthmus.bottleneck`.

    Attributes:
        dim: size of the code. With None the features are the code (identity or isotropic covariance), or the code is as
            large as the features (diagonal or full covariance).
        covariance: of e(z|x): "identity", "isotropic" (one trained standard deviation for all codes), "diagonal" or
            "full". None means identity for CEB and deterministic models (Fischer & Alemi 2020), isotropic for the
            nonlinear IB, and diagonal for VIB (Alemi et al. 2017) and hierarchies.
        encoder_std: initial standard deviation of e(z|x), independent of the features; None means the covariance's
            default.
        encoder_std_offset: σ of e(z|x) is softplus(s + encoder_std_offset), where s is an output of the encoder; for a
            full covariance, the diagonal of L. None means −5 for a diagonal covariance (Alemi et al. 2017, on MNIST)
            and softplus⁻¹(1) = 0.54 for a full one; 0 is the plain softplus.
        samples: codes drawn per image, in training and in the stochastic mode.
        classifier: c(y|z): "linear", "mlp" (two ELU layers of 64), or "consistent" (Bayes' rule on b(z|y), without
            parameters). None means "consistent" for objectives that learn no classifier (CatGen, bidirectional CEB)
            and "linear" otherwise.
        classifier_std: initial weights of a linear classifier are N(0, classifier_std²); None means Glorot-uniform.
        classifier_unit_norm: initial weights of each class are normal and scaled to norm 1.
        classifier_hidden: widths of hidden ReLU layers of an "mlp" classifier, in place of its two ELU layers.
        backward: b(z|y), if the objective needs it: "linear" in the one-hot label, a "table" with a row for each class
            and no shared bias, or an "mlp" of two ELU layers.
        marginal: m(z): "standard" (N(0, I)), a learned "mixture", the "batch" (of e(z|x) over its images), or the
            "classes" (of b(z|y), which is then built). None builds what the objective needs: N(0, I) for VIB, nothing
            for CEB, whose rate is reported with the mixture of its classes.
        components: of a mixture marginal.
        levels: number of codes in a chain image → z_1 → ... → z_L, each with its own c and b; see
            :class:`isthmus.models.hierarchy.Hierarchy`. None means 2 for a hierarchical objective, and 1 otherwise.
    """

    dim: Positive | None = None
    covariance: Literal["identity", "isotropic", "diagonal", "full"] | None = None
    encoder_std: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    encoder_std_offset: StdOffset | None = None
    samples: Positive = 1
    classifier: Literal["linear", "mlp", "consistent"] | None = None
    classifier_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    classifier_unit_norm: bool = False
    classifier_hidden: tuple[Positive, ...] | None = None
    backward: Literal["linear", "table", "mlp"] = "linear"
    marginal: Literal["standard", "mixture", "batch", "classes"] | None = None
    components: Positive = 240
    levels: Positive | None = None


class Model(BottleneckOptions):
    """A backbone and the bottleneck around it.

    Attributes:
        backbone: from images to features.
        normalize: what happens to images in [0, 1] first: "symmetric" maps them to [-1, 1], "dataset" gives each
            channel of the training images mean 0 and standard deviation 1, "none" changes nothing; or whitening.
        hypothesis: layers that are conditioned on label hypotheses, in place of a bottleneck.
        init: weights to start from as far as names and shapes fit, of the whole model or of its backbone: a safetensors
            or ``.pt`` file, or a hub's name such as ``timm:resnet18``; see :mod:`isthmus.models.pretrained`.
        freeze: patterns of names of layers or weights that are not trained, such as "backbone.*" or
            "backbone.layers.0"; ``*`` stands for any characters. Their batch normalisation keeps its running
            statistics.
    """

    backbone: SerializeAsAny[Annotated[Component, BeforeValidator(lambda v: component("backbones", v))]]
    normalize: Annotated[Literal["symmetric", "dataset", "none"] | Whiten, BeforeValidator(_whitening)] = "symmetric"
    hypothesis: HypothesisLayers | None = None
    init: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    freeze: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _bottleneck_or_hypothesis(self) -> Model:
        names = self.model_fields_set & BottleneckOptions.model_fields.keys()
        given = sorted(name for name in names if getattr(self, name) != BottleneckOptions.model_fields[name].default)
        if self.hypothesis is not None and given:
            raise ValueError(f"{', '.join(given)}: options of a bottleneck, which a hypothesis model does not have")
        return self
