"""Experiments: method, data, training and threshold, validated, from presets, files and options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, create_model, field_validator

from carat.config.base import Count, Fraction, Positive, Section, Weight, explain, merge, read_yaml
from carat.config.carat import CaratConfig
from carat.config.encoders import EncoderChoice
from carat.config.methods import MethodConfig, find_method
from carat.config.renamed import rename_keys
from carat.utils.errors import ConfigError, did_you_mean
from carat.utils.logging import logger


class DataConfig(Section):
    """Which data is read from the store, and how it is batched."""

    modalities: list[str] | None = None
    """Modalities to use, in this order; all of the store's by default."""
    batch_size: Positive = 64
    """Samples per batch, over all processes."""
    bucket: bool = True
    """Train on batches of similar length (seeded, redrawn each epoch): less padding, same samples."""
    padding: Literal["masked", "unmasked"] = "masked"
    """masked; or unmasked as in the released code: zeros up to the store's longest sequence are steps."""
    truncation: bool = False
    """Truncate sequences that are longer than the encoder's `max_length`; otherwise they are an error."""
    workers: Count | None = None
    """Loader processes; 0 reads in the training process. By default 2 for a GPU, else 0."""


class TrainingConfig(Section):
    """Optimizer, schedule, stopping and device."""

    epochs: Positive = 20
    """Passes over the training split."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak learning rate."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Fraction of the steps with linearly growing learning rate; it then falls linearly to 0."""
    idle_first_step: bool = False
    """Take the first step with learning rate 0, as the released code does."""
    weight_decay: Weight = 0.01
    """Weight decay, except of biases and LayerNorms."""
    clip: Weight = 1.0
    """Maximal norm of the whole gradient; 0 switches clipping off."""
    clip_tensors: Weight = 0.0
    """Then the maximal norm of each parameter's gradient, 1 in the released code; 0 switches it off."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged before a step."""
    modality_dropout: Fraction = 0.0
    """Probability of dropping a modality of a training sample, but never its last one."""
    ema_decay: Fraction = 0.0
    """Decay of an exponential moving average of the weights, which is kept instead; 0 switches it off."""
    checkpoint_every: Positive = 200
    """Batches between checkpoints, from which a killed training resumes; also saved after every epoch."""
    keep_checkpoint: bool = True
    """Keep the last checkpoint of a finished run, from which `--resume` with more epochs continues."""
    devices: Positive = 1
    """Processes that share every batch, each with its own core or GPU."""
    early_stopping: Positive | None = None
    """Stop after this many epochs without a better validation micro-F1; off by default."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the forward pass."""
    graph: Literal["eager", "compiled", "cuda-graphs"] = "eager"
    """Execution of a training step; the latter two are for GPUs and fall back to eager if not possible."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device; auto is a GPU if there is one."""


class ThresholdConfig(Section):
    """How scores become labels; the threshold is searched on the validation split."""

    kind: Literal["global", "per-label", "interpolated"] = "global"
    """One for all labels (best micro-F1), one per label (its best F1), or interpolated between both."""
    max_micro_f1_drop: Fraction = 0.01
    """Of interpolated: the largest relative loss of micro-F1 accepted for a better macro-F1."""


class MethodChoice(Section):
    """The method of an experiment."""

    method: SerializeAsAny[MethodConfig] = CaratConfig()

    @field_validator("method", mode="before")
    @classmethod
    def _find_section(cls, value: Any) -> Any:
        """Settings become the section of the method that they name, CARAT's if they name none."""
        field = cls.model_fields["method"]
        if isinstance(value, MethodConfig) and not value.name:
            raise ValueError(f"name the method: {type(value).__name__}(name=...)")
        if not isinstance(value, Mapping):
            return value
        named = {"name": field.default.name} | dict(value)
        if field.annotation is not MethodConfig:  # see `experiment_with`
            return named
        return find_method(str(named["name"])).config_class().model_validate(named)


class SharedSettings(Section):
    """The settings of an experiment that do not depend on the method."""

    data: DataConfig = DataConfig()
    encoders: dict[str, EncoderChoice] = {}
    """Pretrained encoders of tokens or sound in front of the model, by modality."""
    training: TrainingConfig = TrainingConfig()
    threshold: ThresholdConfig = ThresholdConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of weights, data order, dropout and shuffles."""


class Experiment(SharedSettings, MethodChoice):
    """Everything a training run depends on besides its data; its values never change.

    Make one with `load_experiment`, which knows presets and names unknown keys. Its sections are `method`
    (see `MethodConfig`), `data`, `encoders`, `training`, `threshold` and `seed`.

    >>> Experiment().training.epochs
    20
    """


def experiment_with(method: str) -> type[Experiment]:
    """The type of experiments with this method, for options and errors that name its keys.

    Instances cannot be pickled; `parse_experiment` makes an `Experiment`.

    Raises:
        ConfigError: no such method.
    """
    return _experiment_with(find_method(method).config_class(), method)


@cache
def _experiment_with(section: type[MethodConfig], name: str) -> type[Experiment]:
    default = section(name=name)
    made: type[Experiment] = create_model("Experiment", __base__=Experiment, method=(section, default))
    return made


def parse_experiment(values: Mapping[str, Any], origin: str) -> Experiment:
    """Validate the values of an experiment.

    Args:
        values: nested mapping, as of `Experiment.model_dump`.
        origin: file or name that an error begins with.

    Raises:
        ConfigError: in one line, the key, what was found and what is expected.
    """
    section = values.get("method")
    named = section.get("name") if isinstance(section, Mapping) else None
    try:
        known = experiment_with(str(named or CaratConfig().name))
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error
    try:
        return Experiment.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, known, values)}") from error


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "official": {},
    "small": {"data": {"batch_size": 32}, "training": {"epochs": 5, "learning_rate": 2e-3}},
    "text": {
        "data": {"batch_size": 32, "truncation": True},
        "training": {"epochs": 2, "learning_rate": 1e-3},
    },
}
"""Named starting points, on top of which a method has changes of its own, see `PRESETS` of its section.

`paper` is a method as published, `official` reproduces the authors' released code (CARAT only), `small`
trains in a minute on a laptop, `text` fine-tunes a pretrained text encoder (CARAT, carat+, linear).
"""


def preset_values(preset: str, method: str = "carat") -> dict[str, Any]:
    """The values of a preset for a method, as part of an experiment.

    Raises:
        ConfigError: unknown preset or method, or a preset that this method does not have.
    """
    if preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS) or f"; known: {', '.join(PRESETS)}"
        raise ConfigError(f"unknown preset '{preset}'{hint}")
    starts = find_method(method).config_class().PRESETS
    if preset not in starts:
        raise ConfigError(f"method {method} has no preset '{preset}'; it has: {', '.join(starts)}")
    return merge(merge(PRESETS[preset], starts[preset]), {"method": {"name": method}})


def _expand_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """Expand `method: mult` to a section."""
    method = values.get("method")
    return {**values, "method": {"name": method}} if isinstance(method, str) else dict(values)


def load_experiment(
    file: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Experiment:
    """An experiment from a preset, then a YAML file, then overrides; later ones win, key by key.

    Args:
        file: YAML file with any part of an `Experiment`; may name its own `preset`.
        preset: one of `PRESETS`; the file's, or else `paper`, when None.
        overrides: nested mapping, e.g. ``{"training": {"epochs": 3}}``; may name its own `preset` too.

    Returns:
        The experiment, complete and validated.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key or a value out of range.

    >>> load_experiment(overrides={"training": {"epochs": 3}}).training.epochs
    3
    """
    origin = str(file) if file is not None else "experiment"
    written: dict[str, Any] = {}
    for given in (read_yaml(file) if file is not None else {}, overrides or {}):
        values, notices = rename_keys(_expand_method(given))
        written = merge(written, values)
        for notice in notices:
            logger.warning("%s: %s", origin, notice)
    named = written.pop("preset", "paper")
    section = written.get("method") or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{origin}: method: expected keys and values or a name, found {section!r}")
    method = str(section.get("name", "carat"))
    try:
        start = preset_values(preset or str(named), method)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error
    return parse_experiment(merge(start, written), origin)


ExperimentLike = Experiment | Mapping[str, Any] | str | os.PathLike[str]
"""An experiment, a nested mapping of what differs from its preset, or a YAML file."""


def as_experiment(given: ExperimentLike) -> Experiment:
    """Return the experiment that an argument stands for.

    Raises:
        ConfigError: see `load_experiment`.
    """
    if isinstance(given, Experiment):
        return given
    return load_experiment(overrides=given) if isinstance(given, Mapping) else load_experiment(given)
