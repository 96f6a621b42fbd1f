"""Frozen configs, and loading them from YAML and dotted overrides. A typo is an error with a suggestion."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
)

from isthmus.core import files, registry
from isthmus.core.errors import ConfigError, FileError, brief, shown, unknown

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ConfigT = TypeVar("ConfigT", bound=BaseModel)
FrozenT = TypeVar("FrozenT", bound="Frozen")
ComponentT = TypeVar("ComponentT", bound="Component")

_MOST_VALUES, _DEEPEST, _MOST_FAULTS = 100_000, 50, 5


class Frozen(BaseModel):
    """Base of every config: immutable, and a key it does not know is an error.

    Raises:
        ConfigError: a key or a value is wrong, as from :func:`validate`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, ser_json_inf_nan="strings"
    )

    def __init__(self, /, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _config_error(type(self), error, type(self).__name__) from None

    # Without this mark pydantic would call __init__ for nested configs, too, and the path to them would be lost.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def plain(self, *, given_only: bool = False) -> dict[str, Any]:
        """The config as JSON-able data, infinities as strings; with ``given_only`` without the defaults."""
        content: dict[str, Any] = json.loads(self.model_dump_json(exclude_unset=given_only))
        return content


class Component(Frozen):
    """Base of every component: a frozen class whose fields are its options.

    A component of this package fixes ``name`` with a ``Literal`` equal to its file's name. For other classes ``name``
    is the path ``module:Name``, with which a saved recipe can be built again; also if they fix another name that is not
    registered.

    Attributes:
        argument: the option that the short form ``name:value`` sets (``folder:my/images``).
    """

    argument: ClassVar[str | None] = None
    name: str = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        field = cls.model_fields["name"]
        if field.annotation is str:
            field.default = f"{cls.__module__}:{cls.__qualname__}"
            cls.model_rebuild(force=True)

    @field_validator("name", mode="wrap")
    @classmethod
    def _fixed_or_path(cls, given: Any, fixed: ValidatorFunctionWrapHandler) -> Any:
        return given if isinstance(given, str) and registry.PATH.fullmatch(given) else fixed(given)

    @field_serializer("name")
    def _any_name(self, name: str) -> str:  # without it, pydantic warns of a path where a Literal is declared
        return name


def component(kind: str, given: object) -> Component:
    """Build the config of one component from a name or a mapping with a ``name``.

    Args:
        kind: a key of :data:`isthmus.core.registry.KINDS`.
        given: ``"ceb"``, ``"folder:PATH"``, ``"mypackage.module:Name"``, ``{"name": "ceb", "rho": 2}``, that mapping
            in YAML, or a component.

    Raises:
        ConfigError: no name, an unknown name, or options that do not fit it.
    """
    if isinstance(given, Component):
        return given
    options = _short_form(kind, given) if isinstance(given, str) else given
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise ConfigError(
            f"{kind}: give a name, or a mapping with a 'name' and options; got {shown(given)}. "
            f"There is: {', '.join(registry.names(kind))}."
        )
    if kind in ("data", "ood_scores") and registry.is_function(kind, options["name"]):
        options = {**options, "name": "function", "path": options["name"]}
    chosen = registry.load(kind, options["name"])
    fixed = chosen.model_fields["name"].default
    if fixed in registry.names(kind) and registry.load(kind, fixed) is chosen:
        options = {**options, "name": fixed}
    built = validate(chosen, options, where=f"{registry.KINDS[kind]} {options['name']}")
    assert isinstance(built, Component)
    return built


def instance(kind: str, component: Component, base: type[ComponentT]) -> ComponentT:
    """The component, checked to be an instance of the base class of its kind.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(component, base):
        raise ConfigError(
            f"{component.name!r} is no {registry.KINDS[kind]}: its class {type(component).__name__} does not subclass "
            f"{base.__module__}.{base.__name__}."
        )
    return component


def options(config: type[FrozenT], given: FrozenT | Mapping[str, Any] | None) -> FrozenT:
    """The options of a function, given as an object, as a mapping of its fields, or not at all.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    if isinstance(given, config):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"options must be {config.__name__} or a mapping of its fields; got {shown(given)}.")
    return validate(config, given or {}, where="options")


def _short_form(kind: str, given: str) -> Any:
    if given.lstrip().startswith("{"):
        try:
            return _yaml(given)
        except ValueError:
            raise ConfigError(
                f"{kind}: {shown(given)} is no mapping in YAML, such as {{name: folder, path: PATH, channels: 1}}."
            ) from None
    name, more = split_options(given)
    chosen, colon, argument = name.partition(":")
    if not colon or registry.is_path(kind, name):
        return {"name": name, **more}
    option = registry.load(kind, chosen).argument
    if option is None:
        raise ConfigError(f"The {registry.KINDS[kind]} {chosen!r} takes nothing after a colon; got {shown(given)}.")
    return {"name": chosen, option: argument, **more}


_OPTION = re.compile(r",(?=[A-Za-z_]\w*=)")


def split_options(given: str) -> tuple[str, dict[str, Any]]:
    """A name and the options after it: ``"folder:PATH,channels=1"`` has the option ``channels``; values are YAML.

    Raises:
        ConfigError: a value that is no YAML.
    """
    name, *texts = _OPTION.split(given)
    found: dict[str, Any] = {}
    for text in texts:
        option, _, value = text.partition("=")
        try:
            found[option] = _yaml(value)
        except ValueError:
            raise ConfigError(f"The value of {option} in {shown(given)} cannot be read: {shown(value)}.") from None
    return name, found


def split_names(given: str) -> list[str]:
    """Names with commas between them, each with its options: ``"fgsm,pgd:100,restarts=5"`` are two.

    Commas inside brackets belong to an option: ``"ood_detection,scores=[knn,vim]"`` is one.
    """
    depth, start, names = 0, 0, []
    for place, letter in enumerate(given):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth <= 0 and not _OPTION.match(given, place):
            names.append(given[start:place])
            start = place + 1
    return [name.strip() for name in (*names, given[start:])]


def validate(config: type[ConfigT], given: Mapping[str, Any], where: str) -> ConfigT:
    """Validate a mapping against a config class.

    Raises:
        ConfigError: one sentence per fault, each naming the key, what was given and what was expected.
    """
    _check_size(given, where)
    try:
        return config.model_validate(given)
    except ValidationError as error:
        raise _config_error(config, error, where) from None


def _config_error(config: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    found = error.errors()
    faults = [_sentence(config, fault) for fault in found[:_MOST_FAULTS]]
    more = [f"and {len(found) - _MOST_FAULTS} more faults"] if len(found) > _MOST_FAULTS else []
    return ConfigError(f"{where}: {'; '.join(faults + more)}")


def _check_size(content: object, where: str) -> None:
    """Refuse numbers beyond 64 bits, and content that is too deep or too large, as YAML aliases of aliases are."""
    waiting, seen = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise ConfigError(
                f"{where}: it is nested more than {_DEEPEST} deep or expands to more than {_MOST_VALUES:,} values, as "
                "nested YAML anchors do; write the values out."
            )
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ConfigError(f"{where}: a whole number must be below 2^63; got {shown(value)}.")
        if isinstance(value, Mapping):
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(inner, depth + 1) for inner in value]


def _sentence(config: type[BaseModel], fault: Any) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *outer, key = fault["loc"]
        place = f"{'.'.join(map(str, outer))}: " if outer else ""
        return place + unknown("key", key, _fields_at(config, outer))
    message: str = fault["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    if not path:  # a validator of the whole config, whose message says what is wrong
        return message
    if fault["type"] == "missing":  # what was given is the mapping around it
        return f"{path[:200]}: {message}"
    return f"{path[:200]}: {message} (got {shown(fault['input'])})"


def _fields_at(config: type[BaseModel], loc: Sequence[object]) -> list[str]:
    """Keys that are allowed at a place inside nested configs; empty where the place is not a config."""
    for part in loc:
        field = config.model_fields.get(str(part))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()  # or one of a union's, as in X | None
        config_kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if len(config_kinds) != 1:
            return []
        config = config_kinds[0]
    return [*config.model_fields, *getattr(config, "alternatives", ())]


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        FileError: the file cannot be read.
        ConfigError: it is not YAML, or not a mapping.
    """
    path = Path(path)
    files.check_regular(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:  # ValueError: no text, or a path with a null byte
        raise FileError(f"Cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}.") from None
    try:
        content = _yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path} must hold a mapping of keys to values; it holds {type(content).__name__}.")
    return content


class _Loader(yaml.SafeLoader):
    """A safe loader that limits merge keys: each ``<<`` of several aliases may hold further ones.

    A key that is given twice is an error; YAML's own readers take the last.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MOST_VALUES // 10:
            raise yaml.constructor.ConstructorError(None, None, "a mapping with too many merged keys", node.start_mark)


def _yaml(text: str) -> Any:
    """Parse YAML, plain data alone.

    Raises:
        ValueError: it is not YAML; the message is one sentence.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # PyYAML fails on text that looks like a date or a number and is none
    except yaml.MarkedYAMLError as error:
        place = (
            f", line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
            if error.problem_mark
            else ""
        )
        raise ValueError(f"{' '.join((error.problem or brief(error)).split())}{place}.") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(brief(error)) from None


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn ``["objective.rho=2", "seed=3"]`` into ``{"objective.rho": 2, "seed": 3}``; values are YAML.

    Raises:
        ConfigError: an item without ``=``, or a value that is not YAML.
    """
    overrides: dict[str, Any] = {}
    for item in assignments:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"An override is written key=value, such as objective.rho=2; got {shown(item)}.")
        try:
            overrides[key] = _yaml(value)
        except ValueError:
            raise ConfigError(f"The value of the override {shown(item)} is not valid YAML.") from None
    return overrides


def override(given: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested mappings with dotted keys set, making mappings on the way.

    A component given by its bare name (``objective: ceb``) becomes a mapping when an option below it is set.

    Raises:
        ConfigError: a dotted key goes through something that is not a mapping.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in given.items()}
    for dotted, value in overrides.items():
        head, _, rest = dotted.partition(".")
        if not rest:
            result[head] = value
            continue
        inner = result.get(head, {})
        if isinstance(inner, str):
            inner = {"name": inner}
        if not isinstance(inner, Mapping):
            raise ConfigError(
                f"Cannot set {shown(dotted)}: {shown(head)} holds {shown(inner)}, which has no keys below it."
            )
        result[head] = override(inner, {rest: value})
    return result
