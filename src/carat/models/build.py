"""Construction of models and their pretrained encoders from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from carat.config.encoders import ENCODERS, EncoderChoice
from carat.config.ensemble import EnsembleConfig
from carat.config.methods import BUILT_IN, MethodConfig, find_method
from carat.models.base import Model, check_modality_names
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.models.encoders.wrapper import EncodedModel
from carat.models.ensemble import Ensemble
from carat.models.sizes import check_memory, measure
from carat.utils.errors import ConfigError, DataError, did_you_mean
from carat.utils.hugging_face import TOKENIZER, digest

SLACK = 1 << 28
"""Bytes by which a model may be larger than its weights before it is refused without reading them."""


class ModalityInfo(Protocol):
    """Protocol of the metadata of a modality in a store or run."""

    @property
    def width(self) -> int: ...
    @property
    def tokens(self) -> Any: ...
    @property
    def waveform(self) -> Any: ...


def build_model(config: MethodConfig, widths: Mapping[str, int], labels: Sequence[str]) -> Model:
    """Construct the model of a configuration section.

    Args:
        config: method section.
        widths: features per time step by modality, in the order of the M axis.
        labels: label names, in the order of the L axis.

    Raises:
        ConfigError: the method is unknown, or its configuration is invalid.
    """
    model: Model = find_method(config.name).model_class()(widths, labels, config)
    return model


def build(
    config: MethodConfig,
    choices: Mapping[str, EncoderChoice],
    labels: Sequence[str],
    modalities: Mapping[str, ModalityInfo],
    run: Path | None = None,
    start: Path | None = None,
) -> Model:
    """Construct a model with its pretrained encoders for the modalities of a store or a run.

    Args:
        config: method section.
        choices: configuration of encoders by modality.
        labels: label names, in the order of the L axis.
        modalities: metadata by modality, in the order of the M axis.
        run: folder of a finished run, from which encoders are constructed without weights; None loads
            pretrained encoders from their configured folders.
        start: folder of the run from which encoders without a folder are constructed, without weights.

    Raises:
        ConfigError: the encoders do not match the data, the method's configuration is invalid, or the model
            needs more memory than there is.
        DataError: the folder of an encoder is invalid, or does not match the data.
    """
    if isinstance(config, EnsembleConfig):
        return _build_ensemble(config, labels, modalities, run)
    encoders = {}
    check_modality_names(modalities)
    _check(choices, modalities, run or start)
    for m, info in modalities.items():
        text = info.tokens is not None
        if not text and info.waveform is None:
            continue
        choice = choices.get(m, EncoderChoice())
        origin = run or (None if choice.folder else start)
        folder = Path(choice.folder) if origin is None else origin / ENCODERS / m
        encoders[m] = PretrainedEncoder(folder, choice, text=text, weights=origin is None)
        if text and digest(folder / TOKENIZER) != info.tokens.tokenizer:
            raise DataError(f"{folder / TOKENIZER}: differs from the tokenizer of the stored tokens of {m}")
        rate = encoders[m].sound.get("sampling_rate")
        if not text and rate not in (None, info.waveform.rate):
            raise DataError(
                f"{folder}: expects a sampling rate of {rate} Hz, but {m} was stored at "
                f"{info.waveform.rate} Hz; build the store with rate: {rate}"
            )
    widths = {m: encoders[m].width if m in encoders else x.width for m, x in modalities.items()}
    if config.name in BUILT_IN:  # constructors from elsewhere may do more than construct
        _check_size(config, widths, labels, run)
    model = build_model(config, widths, labels)
    return EncodedModel(model, encoders) if encoders else model


def _build_ensemble(
    config: EnsembleConfig, labels: Sequence[str], modalities: Mapping[str, ModalityInfo], run: Path | None
) -> Ensemble:
    """Construct the members of an ensemble.

    Raises:
        ConfigError: it is not one of trained runs, or a member has a modality that the run does not have.
    """
    if run is None or not config.members:
        raise ConfigError(f"method.name {config.name}: made of trained runs by `carat ensemble`")
    for m in (m for member in config.members for m in member.modalities):
        if m not in modalities:
            raise ConfigError(f"method.members: the run has no modality '{m}'")
    members = [
        build(x.method, x.encoders, labels, {m: modalities[m] for m in x.modalities}, run)
        for x in config.members
    ]
    return Ensemble(members, [x.modalities for x in config.members], list(modalities))


def _check_size(
    config: MethodConfig, widths: Mapping[str, int], labels: Sequence[str], run: Path | None
) -> None:
    """Check that there is memory for a model, and for one of a run, that its weights are as large."""
    size = measure(lambda: build_model(config, widths, labels))
    if run is not None:
        stored = sum(file.stat().st_size for file in run.glob("*.safetensors"))
        if size.stored > stored + SLACK:  # otherwise reading them tells what is wrong
            raise DataError(f"{run}: the weights belong to a smaller model than that of the experiment")
    check_memory(
        size.in_training if run is None else size.in_use,
        f"method.name {config.name} with {size.parameters // 4:,} parameters",
        "make hidden, layers, queue or max_length smaller",
    )


def _check(
    choices: Mapping[str, EncoderChoice], modalities: Mapping[str, ModalityInfo], origin: Path | None
) -> None:
    """Check that exactly the modalities with tokens or audio have an encoder.

    Args:
        choices, modalities: see `build`.
        origin: run with encoders for modalities without a folder.

    Raises:
        ConfigError: they have not.
    """
    for m in choices:
        if m not in modalities:
            hint = did_you_mean(m, modalities) or f"; available: {', '.join(modalities)}"
            raise ConfigError(f"encoders: the data has no modality '{m}'{hint}")
    for m, info in modalities.items():
        choice = choices.get(m, EncoderChoice())
        raw = "tokens" if info.tokens is not None else "audio" if info.waveform is not None else ""
        if m in choices and choice.kind == "pretrained" and not raw:
            raise ConfigError(
                f"encoders.{m}: the modality has features, but a pretrained encoder needs tokens or audio"
            )
        if raw and (choice.kind == "transformer" or not (choice.folder or origin)):
            raise ConfigError(
                f"modality '{m}' has {raw} and needs an encoder: set encoders.{m}.folder "
                f"(--encoders.{m}.folder FOLDER)"
            )
        if raw and origin is not None and not choice.folder and not (origin / ENCODERS / m).is_dir():
            raise ConfigError(
                f"modality '{m}' has {raw} and needs an encoder, but the run {origin} has none for it: set "
                f"encoders.{m}.folder"
            )
