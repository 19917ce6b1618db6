"""The registry of methods: name, configuration section and model class. Needs no PyTorch."""

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
"""Entry points of installed packages, `name = "package.module:Class"`."""
MODEL = "carat.models.base.Model"
"""The base class of models, by name: it needs PyTorch."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]*")
"""Names of methods, which are names of folders too."""
RESERVED = "all"
"""Stands for every method on the command line."""

Presets = dict[str, dict[str, Any]]
"""Changes to an experiment, by preset."""
M = TypeVar("M", bound=type)


class MethodConfig(Section):
    """Settings of a method; the section of a method without settings.

    A derived class adds fields with defaults. Its docstring and those of its fields are the help texts.
    """

    PRESETS: ClassVar[Presets] = {"paper": {}, "small": {}}
    """What each preset changes in an experiment for this method."""

    name: str = ""
    """Which method to train."""

    def __getstate__(self) -> dict[Any, Any]:
        model = METHODS[self.name].model if self.name in METHODS else ""
        return super().__getstate__() | {"module": "" if isinstance(model, str) else model.__module__}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        if module := state.pop("module", ""):
            import_module(module)  # registers the method, in a worker process
        super().__setstate__(state)


@dataclass(frozen=True)
class Method:
    """An entry of the registry. Classes given as "module:Class" are imported on first use."""

    name: str
    config: type[MethodConfig] | str
    model: type[Any] | str

    def config_class(self) -> type[MethodConfig]:
        """The configuration section."""
        found: type[MethodConfig] = _resolve(self.config)
        return found

    def model_class(self) -> type[Any]:
        """The model, a subclass of `carat.Model`."""
        found: type[Any] = _resolve(self.model)
        return found

    def default_config(self) -> MethodConfig:
        """The section with its default values."""
        return self.config_class()(name=self.name)

    def summary(self) -> str:
        """The first paragraph of the section's docstring, or else of the model's, on one line."""
        section = self.config_class()
        text = section.__doc__ if section is not MethodConfig else ""
        return " ".join((text or self.model_class().__doc__ or "").split("\n\n")[0].split())


def _resolve(found: Any) -> Any:
    if not isinstance(found, str):
        return found
    module, _, name = found.partition(":")
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
"""Built-in and registered methods, by the name that an experiment gives in `method.name`."""
BUILT_IN = frozenset(METHODS)


def register_method(name: str, config: type[MethodConfig] | None = None) -> Callable[[M], M]:
    """Class decorator that adds a model to the methods that carat trains, compares, loads and exports.

    Registered methods are known to this process and to the worker processes that it starts. For the command
    line, install a package with the entry point ``name = "package.module:Class"`` in the group
    `carat.methods`, see `examples/custom_method`.

    Args:
        name: of the method, as in ``--method NAME``.
        config: its section, every field with a default; None for a method without settings.

    Returns:
        A decorator that returns the class unchanged.

    Raises:
        ConfigError: the name is taken or not usable, the section is none, or the class is no `carat.Model`.

    Example:
        @carat.register_method("mine", MineConfig)
        class Mine(carat.Model): ...
    """
    section = config or MethodConfig
    _check_section(name, section)

    def register(model: M) -> M:
        if not _is_model(model):
            raise ConfigError(f"method '{name}': {_title(model)} is no subclass of carat.Model")
        if name in METHODS and _title(METHODS[name].model) != _title(model):  # a notebook runs cells again
            raise ConfigError(
                f"method '{name}': the name is taken by {_title(METHODS[name].model)}, choose another"
            )
        METHODS[name] = Method(name, section, model)
        return model

    return register


def _check_section(name: str, section: type[MethodConfig]) -> None:
    if not NAME.fullmatch(name) or name == RESERVED:
        raise ConfigError(f"method '{name}': not usable as a name; use letters, digits and any of _ + . -")
    if not (isinstance(section, type) and issubclass(section, MethodConfig)):
        raise ConfigError(f"method '{name}': {_title(section)} is no subclass of carat.MethodConfig")
    try:
        section(name=name)
    except ValidationError as error:
        raise ConfigError(f"method '{name}': {_title(section)}: {explain(error, section)}") from error


def _is_model(found: Any) -> bool:
    return isinstance(found, type) and MODEL in map(_title, found.__mro__)


def _title(found: Any) -> str:
    if isinstance(found, str):
        return found.replace(":", ".")
    return f"{found.__module__}.{found.__qualname__}" if isinstance(found, type) else repr(found)


def method_names() -> list[str]:
    """Names of all methods: built in, registered, offered by installed packages (which are not imported)."""
    offered = _offered()
    for name in sorted(offered.keys() & BUILT_IN):
        logger.warning(
            "method '%s' of package %s is ignored: carat has its own", name, _package(offered[name][0])
        )
    return [*METHODS, *sorted(offered.keys() - METHODS.keys())]


def find_method(name: str) -> Method:
    """The method of this name; one of an installed package is imported.

    Raises:
        ConfigError: no such method, or the package that offers it fails.
    """
    if name not in METHODS:
        offered = _offered()
        if name not in offered:
            hint = did_you_mean(name, method_names()) or f"; known: {', '.join(method_names())}"
            raise ConfigError(f"unknown method '{name}'{hint}")
        _import(name, offered[name])
    return METHODS[name]


def _offered() -> dict[str, list[EntryPoint]]:
    """Entry points by name; a name may be offered by several packages."""
    found = defaultdict(list)
    for point in entry_points(group=GROUP):
        found[point.name].append(point)
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _import(name: str, points: list[EntryPoint]) -> None:
    """Import an entry point's class; it is registered by its decorator, or here without settings."""
    packages = [_package(point) for point in points]
    if len(points) > 1:
        raise ConfigError(f"method '{name}' is offered by {' and '.join(packages)}; uninstall one of them")
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
