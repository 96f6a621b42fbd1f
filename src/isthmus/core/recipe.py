"""The recipe: everything that determines a training run, as one frozen config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from isthmus.core.config import Component, Frozen, component, override, parse_overrides, read_yaml, validate
from isthmus.core.errors import ConfigError
from isthmus.core.model_options import Model
from isthmus.core.tradeoff import TRADE_OFF_NAMES
from isthmus.core.training_options import Training


def _folder_name(name: str) -> str:
    fits = 0 < len(name) <= 100 and name.isprintable() and len(name.encode()) <= 200
    if not fits or name in {".", ".."} or any(c in name for c in '/\\:*?"<>|'):
        raise ValueError('the name becomes a folder; give 1 to 100 printable characters without / \\ : * ? " < > |')
    return name


class Recipe(Frozen):
    """A training run. ``isthmus train recipe.yaml objective.rho=2 seed=3`` reads one and overrides parts of it."""

    name: Annotated[str, AfterValidator(_folder_name)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: SerializeAsAny[Annotated[Component, BeforeValidator(lambda v: component("data", v))]]
    model: Model
    objective: SerializeAsAny[Annotated[Component, BeforeValidator(lambda v: component("objectives", v))]]
    training: Training = Training()

    @model_validator(mode="after")
    def _whole_batches(self) -> Recipe:
        across = getattr(self.objective, "compares_examples", False)
        if self.training.accumulate > 1 and (across or self.model.marginal == "batch"):
            what = f"the objective {self.objective.name!r}" if across else "model.marginal=batch"
            raise ValueError(
                f"{what} compares the examples of a batch, which therefore cannot be split into "
                f"{self.training.accumulate} parts; set training.accumulate to 1 (several training.devices are "
                "possible: they share the codes of the whole batch)"
            )
        return self

    @model_validator(mode="after")
    def _a_marginal_to_optimize(self) -> Recipe:
        default = Training.model_fields["marginal_optimizer"].default
        if self.training.marginal_optimizer != default and self.model.marginal != "mixture":
            raise ValueError(
                f"training.marginal_optimizer is for a learned m(z), and model.marginal is {self.model.marginal}; set "
                "model.marginal to mixture, or leave the optimizer out"
            )
        return self

    @model_validator(mode="after")
    def _resolve_classifier(self) -> Recipe:
        if self.model.classifier is None and self.model.hypothesis is None:
            resolved = self.model.model_copy()
            # bypasses the freeze, and does not count as given
            object.__setattr__(resolved, "classifier", getattr(self.objective, "default_classifier", "linear"))
            object.__setattr__(self, "model", resolved)
        return self


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Read a recipe from a YAML file or a mapping, and apply dotted overrides.

    A file without a name gets its stem as the name.

    Raises:
        FileError: the file cannot be read.
        ConfigError: a key, a name or a value is wrong; the message says which and what is allowed.
    """
    if isinstance(source, Recipe):
        given: dict[str, Any] = source.model_dump()
    elif isinstance(source, Mapping):
        given = dict(source)
    elif not isinstance(source, str | Path):
        raise ConfigError(
            f"A recipe is a YAML file, a mapping or a Recipe; got {type(source).__name__}. Your own module "
            "is trained with isthmus.train(recipe, backbone=module), and audited with isthmus.audit(model, ...)."
        )
    else:
        given = {"name": Path(source).stem, **read_yaml(source)}
    settings = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    try:
        return validate(Recipe, override(_without_other_names(given, settings), settings), where="recipe")
    except RecursionError:
        raise ConfigError(
            "An override goes too deep; a key has as many dots as there are mappings around it."
        ) from None


def _without_other_names(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the recipe's trade-off if an override sets it, perhaps under another name."""
    objective = given.get("objective")
    if not isinstance(objective, Mapping) or not any(f"objective.{name}" in settings for name in TRADE_OFF_NAMES):
        return dict(given)
    return {**given, "objective": {key: value for key, value in objective.items() if key not in TRADE_OFF_NAMES}}
