"""Registry of methods: name, configuration section and model class. Does not import PyTorch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from carat.config.base import Section, explain
from carat.utils.errors import ConfigError, did_you_mean
from carat.utils.logging import logger

GROUP = "carat.methods"
"""Entry point group of installed packages, with entries `name = "package.module:Class"`."""
MODEL = "carat.models.base.Model"
"""The base class of models, by name because importing it imports PyTorch."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]*")
"""Valid names of methods, which are also names of folders."""
RESERVED = "all"
"""Selects every method on the command line."""

Presets = dict[str, dict[str, Any]]
"""Overrides of an experiment, by preset."""
M = TypeVar("M", bound=type)


class MethodConfig(Section):
    """Base class of the method section, and the section of methods without settings.

    Subclasses add fields with defaults. Their docstrings and those of their fields are the help texts.
    """

    PRESETS: ClassVar[Presets] = {"paper": {}, "small": {}}
    """Overrides of an experiment for this method, by preset."""

    name: str = ""
    """Which method to train."""

    def __getstate__(self) -> dict[Any, Any]:
        model = METHODS[self.name].model if self.name in METHODS else ""
        return super().__getstate__() | {"module": "" if isinstance(model, str) else model.__module__}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        if module := state.pop("module", ""):
            import_module(module)  # registers the method in a worker process
        super().__setstate__(state)


@dataclass(frozen=True)
class Method:
    """An entry of the registry. Classes given as "module:Class" are imported on first use."""

    name: str
    config: type[MethodConfig] | str
    model: type[Any] | str

    def config_class(self) -> type[MethodConfig]:
        """Return the class of the configuration section."""
        section: type[MethodConfig] = _resolve(self.config)
        return section

    def model_class(self) -> type[Any]:
        """Return the model class, a subclass of `carat.Model`."""
        model: type[Any] = _resolve(self.model)
        return model

    def default_config(self) -> MethodConfig:
        """Return the section with its default values."""
        return self.config_class()(name=self.name)

    def summary(self) -> str:
        """Return the first paragraph of the docstring of the section, or else of the model, on one line."""
        section = self.config_class()
        text = section.__doc__ if section is not MethodConfig else ""
        return " ".join((text or self.model_class().__doc__ or "").split("\n\n")[0].split())


def _resolve(reference: Any) -> Any:
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _built_in(classes: Mapping[str, tuple[str, str]]) -> dict[str, Method]:
    return {
        name: Method(name, f"carat.config.{config}", f"carat.models.{model}")
        for name, (config, model) in classes.items()
    }


METHODS: dict[str, Method] = _built_in(
    {
        "carat": ("carat:CaratConfig", "carat.model:Carat"),
        "carat+": ("carat:CaratPlusConfig", "carat.model:Carat"),
        "prior": ("baselines:PriorConfig", "baselines.prior:Prior"),
        "br": ("baselines:BinaryRelevanceConfig", "baselines.classical:BinaryRelevance"),
        "cc": ("baselines:ClassifierChainConfig", "baselines.classical:ClassifierChain"),
        "lp": ("baselines:LabelPowersetConfig", "baselines.classical:LabelPowerset"),
        "linear": ("baselines:LinearConfig", "baselines.linear:Linear"),
        "early-fusion": ("baselines:EarlyFusionConfig", "baselines.early_fusion:EarlyFusion"),
        "late-fusion": ("baselines:LateFusionConfig", "baselines.late_fusion:LateFusion"),
        "mult": ("baselines:MultConfig", "baselines.mult:Mult"),
        "misa": ("baselines:MisaConfig", "baselines.misa:Misa"),
        "tailor": ("baselines:TailorConfig", "baselines.tailor:Tailor"),
        "amp": ("baselines:AmpConfig", "baselines.amp:Amp"),
        "lddu": ("baselines:LdduConfig", "baselines.lddu:Lddu"),
    }
)
"""Built-in and registered methods by name, the value of `method.name` in an experiment."""
COMPOSED = _built_in({"ensemble": ("ensemble:EnsembleConfig", "ensemble:Ensemble")})
"""Methods of runs that are made of other runs, which cannot be chosen for training."""
BUILT_IN = frozenset([*METHODS, *COMPOSED])


def register_method(name: str, config: type[MethodConfig] | None = None) -> Callable[[M], M]:
    """Register a model as a method that carat can train, compare, load and export (class decorator).

    Registered methods are known to this process and to the worker processes that it starts. For the command
    line, install a package with the entry point ``name = "package.module:Class"`` in the group
    `carat.methods`, see `examples/custom_method`.

    Args:
        name: name of the method, as in ``--method NAME``.
        config: configuration section, with a default for every field; None for a method without settings.

    Returns:
        A decorator that returns the class unchanged.

    Raises:
        ConfigError: the name is taken or invalid, or a class is not a subclass of `carat.MethodConfig` or
            `carat.Model`.

    Example:
        @carat.register_method("mine", MineConfig)
        class Mine(carat.Model): ...
    """
    section = config or MethodConfig
    _check_section(name, section)

    def register(model: M) -> M:
        if not _is_model(model):
            raise ConfigError(f"method '{name}': {_qualified_name(model)} is not a subclass of carat.Model")
        if name in METHODS and _qualified_name(METHODS[name].model) != _qualified_name(
            model
        ):  # notebooks rerun cells
            raise ConfigError(
                f"method '{name}': the name is already taken by {_qualified_name(METHODS[name].model)}; "
                "choose another"
            )
        METHODS[name] = Method(name, section, model)
        return model

    return register


def _check_section(name: str, section: type[MethodConfig]) -> None:
    if not NAME.fullmatch(name) or name == RESERVED:
        raise ConfigError(f"method '{name}': invalid name; use letters, digits and the characters _ + . -")
    if not (isinstance(section, type) and issubclass(section, MethodConfig)):
        raise ConfigError(
            f"method '{name}': {_qualified_name(section)} is not a subclass of carat.MethodConfig"
        )
    try:
        section(name=name)
    except ValidationError as error:
        raise ConfigError(
            f"method '{name}': {_qualified_name(section)}: {explain(error, section)}"
        ) from error


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and MODEL in map(_qualified_name, value.__mro__)


def _qualified_name(value: Any) -> str:
    """Qualified name of a class or of a reference to one, for messages."""
    if isinstance(value, str):
        return value.replace(":", ".")
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else repr(value)


def method_names() -> list[str]:
    """Return the names of all methods: built-in, registered, and provided by installed packages.

    Packages are not imported.
    """
    provided = _entry_points()
    for name in sorted(provided.keys() & BUILT_IN):
        logger.warning(
            "method '%s' of package %s is ignored: it is a built-in name", name, _package(provided[name][0])
        )
    return [*METHODS, *sorted(provided.keys() - METHODS.keys())]


def find_method(name: str) -> Method:
    """Look up a method by name; imports the package that provides it.

    Raises:
        ConfigError: the method is unknown, or its package cannot be imported.
    """
    if name in COMPOSED:
        return COMPOSED[name]
    if name not in METHODS:
        provided = _entry_points()
        if name not in provided:
            hint = did_you_mean(name, method_names()) or f"; known: {', '.join(method_names())}"
            raise ConfigError(f"unknown method '{name}'{hint}")
        _import(name, provided[name])
    return METHODS[name]


def _entry_points() -> dict[str, list[EntryPoint]]:
    """Entry points by name; several packages may provide the same name."""
    points = defaultdict(list)
    for point in entry_points(group=GROUP):
        points[point.name].append(point)
    return points


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _import(name: str, points: list[EntryPoint]) -> None:
    """Import the class of an entry point, and register it unless its decorator does."""
    packages = [_package(point) for point in points]
    if len(points) > 1:
        raise ConfigError(f"method '{name}' is provided by {' and '.join(packages)}; uninstall all but one")
    try:
        model = points[0].load()
    except Exception as error:  # a package may raise anything
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"method '{name}' of package {packages[0]}: {points[0].value} cannot be imported "
            f"({type(error).__name__}: {reason})"
        ) from error
    if name not in METHODS:
        try:
            register_method(name)(model)
        except ConfigError as error:
            raise ConfigError(f"package {packages[0]}: {error}") from error
