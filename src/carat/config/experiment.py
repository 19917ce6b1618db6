"""Experiments: method, data, training and threshold, from presets, YAML files and overrides."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, create_model, field_validator, model_validator

from carat.config.base import MAX_FLOAT, Fraction, Positive, Section, Weight, explain, merge, read_yaml
from carat.config.carat import CaratConfig
from carat.config.encoders import EncoderChoice
from carat.config.methods import MethodConfig, find_method
from carat.config.renamed import rename_keys
from carat.utils.errors import ConfigError, did_you_mean
from carat.utils.logging import logger


class SamplingConfig(Section):
    """How many samples of each corpus an epoch has, in stores of several corpora."""

    temperature: Fraction | None = None
    """Exponent of the sizes of the corpora, to which their shares of an epoch are proportional: at 0 an epoch
    has equally many samples of each, near 1 as many as there are. Its length does not change."""
    weights: dict[str, Annotated[float, Field(ge=0, le=100)]] | None = None
    """Factor by corpus: at 0.5 an epoch has half of its samples, at 2 each one twice; 1 for the others."""

    @model_validator(mode="after")
    def _check_choice(self) -> SamplingConfig:
        if (self.temperature is None) == (self.weights is None):
            raise ValueError("needs either `temperature` or `weights`")
        return self


class DataConfig(Section):
    """Data selection and batching."""

    modalities: list[str] | None = None
    """Modalities to use, in this order; by default all of the store."""
    batch_size: Positive = 64
    """Samples per batch, summed over all processes."""
    bucket: bool = True
    """Batch samples of similar length (reshuffled every epoch), which reduces padding."""
    padding: Literal["masked", "unmasked"] = "masked"
    """masked; or unmasked as in the released code: zeros up to the longest sequence count as time steps."""
    truncation: bool = False
    """Truncate sequences longer than the encoder's `max_length`; otherwise they raise an error."""
    target: Literal["binary", "graded"] | None = None
    """What the cross-entropies compare scores with: binary or graded labels. By default graded ones where the
    store has them and the method takes them."""
    sampling: SamplingConfig | None = None
    """Samples of each corpus in an epoch; by default every training sample once."""
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Data loader processes; 0 loads in the training process. 2 on a GPU by default, else 0."""


InitParts = Literal["all", "trunk", "encoder"]


class TrainingConfig(Section):
    """Start, optimizer, schedule, stopping and device."""

    init_from: str | None = None
    """Folder of a finished run whose weights training starts from; labels and modalities may differ."""
    init_parts: InitParts = "all"
    """Weights to take from that run: all; trunk, without those of labels; or encoder, those of pretrained
    encoders only."""
    teacher: str | None = None
    """Folder of a finished run, such as an ensemble, whose scores on the training split are targets beside
    the labels (distillation)."""
    teacher_weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the teacher's score in a target; where a label is unknown, its score is the target."""
    epochs: Annotated[int, Field(gt=0, le=1_000_000)] = 20
    """Passes over the training split."""
    learning_rate: float = Field(default=5e-5, gt=0, le=MAX_FLOAT)
    """Peak learning rate."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Fraction of the steps with linear warmup of the learning rate, followed by linear decay to 0."""
    idle_first_step: bool = False
    """Take the first step with learning rate 0, as in the released code."""
    weight_decay: Weight = 0.01
    """Weight decay of all parameters except biases and LayerNorms."""
    clip: Weight = 1.0
    """Maximum norm of the gradient; 0 disables clipping."""
    clip_tensors: Weight = 0.0
    """Maximum gradient norm per parameter, applied after `clip`; 1 in the released code, 0 disables it."""
    accumulate: Positive = 1
    """Number of batches whose gradients are averaged before an optimizer step."""
    modality_dropout: Fraction = 0.0
    """Probability of dropping each modality of a training sample, but never its last one."""
    ema_decay: Fraction = 0.0
    """Decay of the exponential moving average of the weights, which replaces them; 0 disables it."""
    checkpoint_every: Positive = 200
    """Number of batches between checkpoints for resuming; one is also saved after every epoch."""
    keep_checkpoint: bool = True
    """Keep the last checkpoint of a finished run, from which `--resume` with more epochs continues."""
    devices: Annotated[int, Field(gt=0, le=4096)] = 1
    """Number of data-parallel processes, each with its own core or GPU, which share every batch."""
    early_stopping: Positive | None = None
    """Patience in epochs without improvement of the validation micro-F1; disabled by default."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the forward pass."""
    graph: Literal["eager", "compiled", "cuda-graphs"] = "eager"
    """Execution of a training step; compiled and cuda-graphs need a GPU and fall back to eager without."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device; auto is a GPU if available."""

    @field_validator("init_from", "teacher", mode="before")
    @classmethod
    def _accept_path(cls, value: Any) -> Any:
        """Accept paths and objects such as `TrainedRun`; an empty text is no run."""
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        return None if path == "" else path


class ThresholdConfig(Section):
    """Decision thresholds, searched on the validation split."""

    kind: Literal["global", "per-label", "interpolated"] = "global"
    """One for all labels (maximum micro-F1), one per label (maximum F1), or interpolated between both."""
    max_micro_f1_drop: Fraction = 0.01
    """For interpolated: maximum relative drop of micro-F1 in exchange for a better macro-F1."""


class CalibrationConfig(Section):
    """How scores become probabilities, learnt on the validation split at the end of training."""

    kind: Literal["auto", "none", "temperature", "platt", "isotonic", "beta"] = "auto"
    """Map of the scores of a label: auto is the one with the smallest cross-validated log loss. Labels with
    few positives get a temperature at most."""


class MethodChoice(Section):
    """The method of an experiment."""

    method: SerializeAsAny[MethodConfig] = CaratConfig()

    @field_validator("method", mode="before")
    @classmethod
    def _find_section(cls, value: Any) -> Any:
        """Validate settings as the section of the method that they name, CARAT by default."""
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
    """Settings of an experiment that do not depend on the method."""

    data: DataConfig = DataConfig()
    encoders: dict[str, EncoderChoice] = {}
    """Pretrained encoders of tokens or audio in front of the model, by modality."""
    training: TrainingConfig = TrainingConfig()
    threshold: ThresholdConfig = ThresholdConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Random seed of initialization, data order, dropout and shuffles."""


class Experiment(SharedSettings, MethodChoice):
    """Complete, immutable configuration of a training run, except for its data.

    Use `load_experiment` to create one from presets, with suggestions for unknown keys. Sections are `method`
    (see `MethodConfig`), `data`, `encoders`, `training`, `threshold`, `calibration` and `seed`.

    >>> Experiment().training.epochs
    20
    """


def experiment_with(method: str) -> type[Experiment]:
    """Return the type of experiments with this method, whose fields name the options of its section.

    Instances cannot be pickled; use `parse_experiment` to create an `Experiment`.

    Raises:
        ConfigError: unknown method.
    """
    return _experiment_with(find_method(method).config_class(), method)


@cache
def _experiment_with(section: type[MethodConfig], name: str) -> type[Experiment]:
    default = section(name=name)
    experiment: type[Experiment] = create_model("Experiment", __base__=Experiment, method=(section, default))
    return experiment


def parse_experiment(values: Mapping[str, Any], origin: str) -> Experiment:
    """Validate the values of an experiment.

    Args:
        values: nested mapping, as returned by `Experiment.model_dump`.
        origin: file or name at the start of error messages.

    Raises:
        ConfigError: one line with the key, the value and what is expected.
    """
    section = values.get("method")
    named = section.get("name") if isinstance(section, Mapping) else None
    try:
        known = experiment_with(str(named or CaratConfig().name))
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error
    try:
        experiment = Experiment.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, known, values)}") from error
    if experiment.training.init_from is None:
        _check_without_origin(experiment, origin)
    return experiment


def _check_without_origin(experiment: Experiment, origin: str) -> None:
    """Check that nothing needs the run `training.init_from`.

    Sections are not checked on their own, because each source of values may set only a part of them.

    Raises:
        ConfigError: it does.
    """
    for m, choice in experiment.encoders.items():
        if choice.kind == "pretrained" and not choice.folder:
            raise ConfigError(f"{origin}: encoders.{m}: kind pretrained requires a folder")
    if experiment.training.init_parts != "all":
        raise ConfigError(f"{origin}: training.init_parts: requires training.init_from")


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
    """Return the values of a preset for a method.

    Args:
        preset: one of `PRESETS`.
        method: name of the method.

    Returns:
        Partial experiment as a nested mapping.

    Raises:
        ConfigError: the preset or the method is unknown, or the method does not have the preset.
    """
    if preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS) or f"; known: {', '.join(PRESETS)}"
        raise ConfigError(f"unknown preset '{preset}'{hint}")
    presets = find_method(method).config_class().PRESETS
    if preset not in presets:
        raise ConfigError(f"method {method} has no preset '{preset}'; available: {', '.join(presets)}")
    return merge(merge(PRESETS[preset], presets[preset]), {"method": {"name": method}})


def _expand_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """Expand `method: mult` to a section."""
    method = values.get("method")
    return {**values, "method": {"name": method}} if isinstance(method, str) else dict(values)


def load_experiment(
    file: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Experiment:
    """Load an experiment from a preset, a YAML file and overrides, each overriding the previous by key.

    Args:
        file: YAML file with a partial `Experiment`; may contain a `preset`.
        preset: one of `PRESETS`; defaults to that of the overrides or the file, else `paper`.
        overrides: nested mapping, e.g. ``{"training": {"epochs": 3}}``; may contain a `preset` too.

    Returns:
        The complete, validated experiment.

    Raises:
        ConfigError: the preset or a key is unknown, the file cannot be read, or a value is out of range.

    >>> load_experiment(overrides={"training": {"epochs": 3}}).training.epochs
    3
    """
    origin = str(file) if file is not None else "experiment"
    merged: dict[str, Any] = {}
    for source in (read_yaml(file) if file is not None else {}, overrides or {}):
        values, notices = rename_keys(_expand_method(source))
        merged = merge(merged, values)
        for notice in notices:
            logger.warning("%s: %s", origin, notice)
    named = merged.pop("preset", "paper")
    section = merged.get("method") or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{origin}: method: expected a mapping or a name, found {section!r}")
    method = str(section.get("name", "carat"))
    try:
        base = preset_values(preset or str(named), method)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error
    return parse_experiment(merge(base, merged), origin)


ExperimentLike = Experiment | Mapping[str, Any] | str | os.PathLike[str]
"""An experiment, a nested mapping of overrides of a preset, or a YAML file."""


def as_experiment(source: ExperimentLike) -> Experiment:
    """Convert an argument to an experiment.

    Raises:
        ConfigError: see `load_experiment`.
    """
    if isinstance(source, Experiment):
        return source
    return load_experiment(overrides=source) if isinstance(source, Mapping) else load_experiment(source)
