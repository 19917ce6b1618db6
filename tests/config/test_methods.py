"""Registry of methods: registration, installed packages, and invalid classes."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

import carat
from carat.config import methods
from carat.config.experiment import Experiment, experiment_with, load_experiment, parse_experiment
from carat.config.methods import METHODS, MethodConfig, find_method, method_names, register_method
from carat.utils.errors import ConfigError


class Toy(carat.Model):
    """A toy.

    It is never trained here.
    """

    def forward(self, features: Any, masks: Any) -> Any: ...

    def losses(self, outputs: Any, labels: Any, generator: Any = None) -> Any: ...


class ToyConfig(MethodConfig):
    """Toy settings."""

    name: str = "toy"
    """Which method to train."""
    units: int = Field(default=3, gt=0)
    """Width of the toy."""


class Undecided(MethodConfig):
    units: int


TOY = """
import carat

class Toy(carat.Model):
    "A toy from a package."
    def forward(self, features, masks): ...
    def losses(self, outputs, labels, generator=None): ...
"""


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Provide methods through entry points whose modules have the given source."""
    points = []

    def provide(name: str, text: str, value: str = "{}:Toy") -> str:
        module = f"plugin{len(points)}_{tmp_path.name}"
        (tmp_path / f"{module}.py").write_text(text)
        points.append(EntryPoint(name, value.format(module), methods.GROUP))
        return module

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(methods, "entry_points", lambda group: points if group == methods.GROUP else [])
    return provide


def test_registered_method_is_available() -> None:
    assert register_method("toy", ToyConfig)(Toy) is Toy
    method = find_method("toy")
    assert (method.config_class(), method.model_class()) == (ToyConfig, Toy)
    assert method.default_config() == ToyConfig()
    assert method.summary() == "Toy settings."
    assert method_names()[-1] == "toy"


def test_method_without_settings() -> None:
    register_method("toy")(Toy)
    assert find_method("toy").default_config() == MethodConfig(name="toy")
    assert find_method("toy").summary() == "A toy."
    experiment = load_experiment(preset="small", overrides={"method": "toy"})
    assert experiment.method.model_dump() == {"name": "toy"}
    with pytest.raises(ConfigError, match=r"unknown key 'method.units'"):
        load_experiment(overrides={"method": {"name": "toy", "units": 3}})


def test_settings_are_validated_by_the_methods_own_section() -> None:
    register_method("toy", ToyConfig)(Toy)
    experiment = load_experiment(overrides={"method": {"name": "toy", "units": 5}})
    assert type(experiment) is Experiment
    assert experiment.method == ToyConfig(units=5)
    assert experiment.model_dump()["method"] == {"name": "toy", "units": 5}
    assert parse_experiment(experiment.model_dump(mode="json"), "again") == experiment
    assert Experiment(method=ToyConfig(units=5)) == experiment
    assert Experiment(method={"name": "toy", "units": 5}) == experiment
    assert experiment != load_experiment(overrides={"method": {"name": "toy"}})
    with pytest.raises(ConfigError, match=r"unknown key 'method.unit'; did you mean 'method.units'\?"):
        load_experiment(overrides={"method": {"name": "toy", "unit": 5}})
    with pytest.raises(ConfigError, match=r"here: method.units: input should be greater than 0, found 0$"):
        parse_experiment({"method": {"name": "toy", "units": 0}}, "here")


def test_unnamed_section_is_refused() -> None:
    with pytest.raises(ValueError, match=r"name the method: MethodConfig\(name=...\)"):
        Experiment(method=MethodConfig())


def test_unpickling_an_experiment_registers_its_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker process has not imported the module that registers the method."""
    (tmp_path / "toy_settings.py").write_text(
        "import carat\nclass Settings(carat.MethodConfig):\n    units: int = 3\n"
    )
    (tmp_path / "toy_models.py").write_text(
        f"{TOY}\nfrom toy_settings import Settings\n"
        "carat.register_method('plain-toy')(Toy)\ncarat.register_method('set-toy', Settings)(Toy)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import_module("toy_models")
    experiments = [load_experiment(overrides={"method": name}) for name in ("plain-toy", "set-toy")]
    for experiment in experiments:
        script = (
            "import pickle, sys\n"
            f"sys.path.insert(0, {str(tmp_path)!r})\n"
            "from carat.config.methods import find_method\n"
            "name = pickle.load(sys.stdin.buffer).method.name\n"
            "print(name, find_method(name).model_class().__module__)"
        )
        completed = subprocess.run(
            [sys.executable, "-c", script], input=pickle.dumps(experiment), capture_output=True, check=False
        )
        assert completed.stdout.decode().split() == [experiment.method.name, "toy_models"], (
            completed.stderr.decode()
        )
        assert pickle.loads(pickle.dumps(experiment)) == experiment


def test_experiment_type_follows_a_redefined_section() -> None:
    register_method("toy", ToyConfig)(Toy)
    assert experiment_with("toy").model_fields["method"].annotation is ToyConfig
    register_method("toy")(Toy)
    assert experiment_with("toy").model_fields["method"].annotation is MethodConfig


def test_class_can_be_registered_again_but_not_replaced() -> None:
    register_method("toy", ToyConfig)(Toy)
    register_method("toy", ToyConfig)(
        type("Toy", (Toy,), {"__module__": __name__})
    )  # as in a rerun notebook cell
    other = type("Other", (Toy,), {"__module__": "elsewhere"})
    with pytest.raises(
        ConfigError, match=rf"method 'toy': the name is already taken by {__name__}.Toy; choose another"
    ):
        register_method("toy")(other)
    with pytest.raises(
        ConfigError, match=r"method 'mult': the name is already taken by carat.models.baselines.mult.Mult"
    ):
        register_method("mult")(Toy)
    assert find_method("toy").model_class() is not other


@pytest.mark.parametrize("name", ["", "all", "a b", "a/b", "-x", "../x"])
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid name; use letters"):
        register_method(name)


@pytest.mark.parametrize(
    ("config", "model", "message"),
    [
        (None, dict, r"method 'toy': builtins.dict is not a subclass of carat.Model"),
        (None, 3, r"method 'toy': 3 is not a subclass of carat.Model"),
        (dict, Toy, r"method 'toy': builtins.dict is not a subclass of carat.MethodConfig"),
        (Undecided, Toy, r"method 'toy': tests.config.test_methods.Undecided: 'units' is missing"),
        (
            methods.find_method("mult").config_class(),
            Toy,
            r"method 'toy': carat.config.baselines.MultConfig: name: input should be 'mult', found 'toy'",
        ),
    ],
)
def test_invalid_classes_are_refused(config: Any, model: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        register_method("toy", config)(model)
    assert "toy" not in METHODS


def test_package_is_imported_on_first_use(package) -> None:  # type: ignore[no-untyped-def]
    module = package("toy", TOY + "print('imported')")
    assert method_names()[-1] == "toy"
    assert module not in sys.modules
    assert find_method("toy").model_class().__module__ == module
    assert find_method("toy").summary() == "A toy from a package."
    assert load_experiment(overrides={"method": "toy"}).method == MethodConfig(name="toy")


def test_decorator_in_a_package_registers_its_section(package) -> None:  # type: ignore[no-untyped-def]
    text = "\n\nclass Settings(carat.MethodConfig):\n    units: int = 3\n\n"
    package("toy", TOY + text + "carat.register_method('toy', Settings)(Toy)\n")
    assert find_method("toy").default_config().model_dump() == {"name": "toy", "units": 3}


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("import nonsense_of_nobody", "{}:Toy", r"cannot be imported \(ModuleNotFoundError: No module named"),
        ("1 / 0", "{}:Toy", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("raise ValueError('two\\n lines')", "{}:Toy", r"\(ValueError: two lines\)"),
        ("", "{}:Toy", r"cannot be imported \(AttributeError: module 'plugin0_.*' has no attribute 'Toy'\)"),
        ("Toy = 3", "{}:Toy", r"method 'toy': 3 is not a subclass of carat.Model"),
        (TOY, "{}", r"method 'toy': <module .*> is not a subclass of carat.Model"),
        (
            TOY + "carat.register_method('mult')(Toy)",
            "{}:Toy",
            r"\(ConfigError: method 'mult': the name is already taken",
        ),
    ],
)
def test_failing_package_is_reported_in_one_line(package, text: str, value: str, message: str) -> None:  # type: ignore[no-untyped-def]
    package("toy", text, value)
    with pytest.raises(ConfigError, match=message) as refused:
        find_method("toy")
    assert "\n" not in str(refused.value)
    assert "plugin0_" in str(refused.value)
    with pytest.raises(ConfigError, match=r"^run.yaml: "):
        parse_experiment({"method": {"name": "toy"}}, "run.yaml")


def test_two_packages_with_one_name_are_refused(package) -> None:  # type: ignore[no-untyped-def]
    first, second = package("toy", TOY), package("toy", TOY)
    with pytest.raises(
        ConfigError, match=rf"'toy' is provided by {first}:Toy and {second}:Toy; uninstall all but one"
    ):
        find_method("toy")


def test_built_in_names_cannot_be_replaced(package, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    package("mult", TOY)
    with caplog.at_level(logging.WARNING, "carat"):
        assert method_names().count("mult") == 1
    assert "method 'mult' of package plugin0_" in caplog.text
    assert find_method("mult").model_class().__module__ == "carat.models.baselines.mult"


def test_unknown_names_have_suggestions(package) -> None:  # type: ignore[no-untyped-def]
    package("toy-story", TOY)
    with pytest.raises(ConfigError, match=r"unknown method 'toy-stori'; did you mean 'toy-story'\?"):
        find_method("toy-stori")
    with pytest.raises(ConfigError, match=r"unknown method 'zzz'; known: carat, carat\+, .*, toy-story$"):
        find_method("zzz")
