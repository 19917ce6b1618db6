"""Experiments: every width, depth, weight and temperature, with the paper's values as defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carat.errors import ConfigError, did_you_mean

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of a configuration: unknown keys are errors, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class EncoderConfig(Section):
    """One Transformer encoder per modality (post-norm, GELU, learned positions)."""

    layers: dict[str, Positive] = {"text": 6, "visual": 4, "audio": 4}
    """Transformer layers by modality."""
    other_layers: Positive = 4
    """Transformer layers of modalities not named in `layers`."""
    heads: Positive = 8
    """Attention heads; must divide `hidden`."""
    feedforward: Positive = 256
    """Width of the feed-forward part of a layer."""
    dropout: Share = 0.3
    """Dropout on embeddings, attention weights and hidden states."""
    max_length: Positive = 500
    """Longest sequence, in time steps, that has a position embedding."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Epsilon of every LayerNorm."""


class AlignmentConfig(Section):
    """LSTM alignment of long modalities to a fixed number of steps (the paper's unaligned setting)."""

    modalities: list[str] = []
    """Modalities to align, e.g. [visual, audio]; none by default: label attention needs no equal lengths."""
    steps: Positive = 50
    """Time steps after alignment; at most `encoder.max_length`."""


class ContrastConfig(Section):
    """Supervised contrast of the latents, against the batch and a queue."""

    temperature: float = Field(default=0.07, gt=0)
    """Temperature of the similarities."""
    queue: Positive = 8192
    """Rows that the first-in-first-out queue holds."""


class LossWeights(Section):
    """Weight of each term in the objective."""

    original: Weight = 0.01
    """Cross-entropy of the original features' logits."""
    alpha: Weight = 0.1
    """Cross-entropy of the first reconstruction's logits."""
    beta: Weight = 1.0
    """Cross-entropy of the second reconstruction's logits."""
    contrast: Weight = 1.0
    """Supervised contrast of the latents."""
    mse_reconstruction: Weight = 1.0
    """Distance of decoded latents from the original features."""
    mse_alpha: Weight = 1.0
    """Distance of the first reconstruction from the original features."""
    mse_beta: Weight = 0.0
    """Distance of the second reconstruction from the original features."""
    aggregate: Weight = 1.0
    """Cross-entropy of the aggregated logits, each modality."""
    shuffled: Weight = 0.1
    """Cross-entropy of the aggregated logits of shuffled features."""


class CaratConfig(Section):
    """CARAT (Peng et al., AAAI 2024)."""

    name: Literal["carat"] = "carat"
    """Which method to train."""
    hidden: Annotated[int, Field(ge=2)] = 256
    """Width D of the label-specific features; a multiple of `encoder.heads`."""
    latent: Positive = 64
    """Width P of the contrastive latent space."""
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Share of a prototype that stays at each update."""
    encoder: EncoderConfig = EncoderConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    contrast: ContrastConfig = ContrastConfig()
    weights: LossWeights = LossWeights()


class DataConfig(Section):
    """What is read from the store, and how it is batched."""

    modalities: list[str] | None = None
    """Modalities to use, in this order; all of the store's by default."""
    batch_size: Positive = 64
    """Samples per batch."""
    bucket: bool = True
    """Train on batches of similar length (seeded, drawn anew each epoch): less padding, same samples."""
    long: Literal["error", "truncate"] = "error"
    """What to do with sequences longer than the encoder's max_length."""
    workers: Count = 0
    """Loader processes; 0 reads in the training process."""


class TrainingConfig(Section):
    """Optimiser, schedule, stopping and device."""

    epochs: Positive = 20
    """Passes over the training split."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Highest learning rate."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps with linearly growing learning rate; it then falls linearly to 0."""
    weight_decay: Weight = 0.01
    """Decay of weights; not applied to biases and LayerNorms."""
    clip: Weight = 1.0
    """Largest norm of the whole gradient; 0 switches clipping off."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged before a step."""
    early_stopping: Positive | None = None
    """Stop after this many epochs without a better validation micro-F1; never by default."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the forward pass."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device; auto takes a GPU when there is one."""


class ThresholdConfig(Section):
    """How scores become labels; the threshold is searched on the validation split."""

    kind: Literal["global", "per-label"] = "global"
    """One threshold for all labels (best micro-F1), or one for each (best F1 of the label)."""


class Experiment(Section):
    """Everything a training run depends on besides its data."""

    method: CaratConfig = CaratConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    threshold: ThresholdConfig = ThresholdConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of weights, order of the data, dropout and shuffles."""


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "small": {
        "method": {
            "hidden": 64,
            "latent": 32,
            "encoder": {
                "layers": {"text": 1, "visual": 1, "audio": 1},
                "other_layers": 1,
                "heads": 4,
                "feedforward": 64,
                "dropout": 0.1,
            },
            "contrast": {"queue": 1024},
        },
        "training": {"epochs": 10, "learning_rate": 1e-3},
    },
}
"""Named starting points: `paper` is the method as published, `small` trains in a minute on a laptop."""

S = TypeVar("S", bound=Section)


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

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key or a value out of range.

    >>> load_experiment(overrides={"training": {"epochs": 3}}).training.epochs
    3
    """
    written = merge(read_yaml(file) if file is not None else {}, overrides or {})
    named = written.pop("preset", "paper")
    preset = preset or str(named)
    if preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS) or f"; known: {', '.join(PRESETS)}"
        raise ConfigError(f"unknown preset '{preset}'{hint}")
    return parse(Experiment, merge(PRESETS[preset], written), str(file) if file is not None else "experiment")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` laid on top, mapping by mapping.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def parse(model: type[S], values: Mapping[str, Any], origin: str) -> S:
    """Validate `values`; the error is one line that names the key, what was found and what is expected."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, model, values)}") from error


def explain(error: ValidationError, model: type[BaseModel], values: Mapping[str, Any] | None = None) -> str:
    """The most telling problem of a pydantic error in one line, with a did-you-mean for unknown keys.

    Args:
        error: what pydantic found.
        model: what was validated.
        values: what was given; names of union members are left out of the path when it is known.
    """
    found = error.errors(include_url=False)
    unknown = [problem for problem in found if problem["type"] == "extra_forbidden"]
    first = (unknown or found)[0]
    path = _written_path(first["loc"], values)
    where = ".".join(path)
    if unknown:
        return f"unknown key '{where}'{_suggest(path, model)}"
    if first["type"] == "missing":
        return f"'{where}' is missing"
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: expected keys and values, found {first['input']!r}"
    if first["type"] == "list_type":
        return f"{where}: expected a list such as [{first['input']}], found {first['input']!r}"
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        key = context["discriminator"].strip("'")
        return f"{where}: {key} '{context['tag']}' is none of {context['expected_tags']}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    if first["type"] == "value_error":
        return f"{where}: {message}{more}"
    return f"{where}: {message}, found {first['input']!r}{more}"


def _written_path(location: tuple[int | str, ...], values: Any) -> list[str]:
    """The keys of a problem's place that stand in the input; pydantic adds the names of union members."""
    path = []
    for part in location[:-1]:
        if isinstance(values, Mapping) and part not in values:
            continue
        path.append(str(part))
        known = isinstance(values, Mapping) or (isinstance(values, list) and isinstance(part, int))
        values = values[part] if known else None
    return [*path, str(location[-1])] if location else []


def _suggest(path: list[str], model: type[BaseModel]) -> str:
    keys = _keys(model)
    beside = [key for key in keys if key[:-1] == path[:-1]]
    for choices in (beside, keys):
        hint = did_you_mean(path[-1], [key[-1] for key in choices])
        for key in choices:
            if f"'{key[-1]}'" in hint:
                return f"; did you mean '{'.'.join(key if '*' not in key else [*path[:-1], key[-1]])}'?"
    return ""


def _keys(annotation: Any, prefix: tuple[str, ...] = ()) -> list[list[str]]:
    """Every key below a model as a path; `*` stands for the free keys of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        keys = []
        for name, field in annotation.model_fields.items():
            keys += [[*prefix, name], *_keys(field.annotation, (*prefix, name))]
        return keys
    inner = (*prefix, "*") if getattr(annotation, "__origin__", None) is dict else prefix
    return [key for part in get_args(annotation) for key in _keys(part, inner)]


def read_yaml(file: str | os.PathLike[str]) -> dict[str, Any]:
    """A YAML file that holds one mapping; an empty file is an empty mapping."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({_reason(error)})") from error
    try:
        values = yaml.load(text, Loader=_NoRepeats)
    except (yaml.YAMLError, ValueError) as error:  # an impossible date is a ValueError
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{file}{line}: not valid YAML ({problem})") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{file}: expected 'key: value' lines, found {type(values).__name__}")
    return values


class _NoRepeats(yaml.SafeLoader):
    """Refuses a mapping that names a key twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' occurs twice", key.start_mark
                )
            seen.add(getattr(key, "value", None) if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def expand(text: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}` by environment variables.

    >>> expand("${CARAT_NO_SUCH_VARIABLE:-here}/file")
    'here/file'

    Raises:
        ConfigError: a variable without default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name) or default
        if found is None:
            raise ConfigError(f"'{text}' needs the environment variable {name}, which is not set")
        return found

    return re.sub(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}", value, text)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
