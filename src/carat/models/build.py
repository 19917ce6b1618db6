"""From a configuration to a model, with pretrained encoders in front of it where the data needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from carat.config.encoders import ENCODERS, EncoderChoice
from carat.config.methods import MethodConfig, find_method
from carat.models.base import Model
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.models.encoders.wrapper import EncodedModel
from carat.utils.errors import ConfigError, DataError, did_you_mean
from carat.utils.hugging_face import TOKENIZER, digest


class ModalityInfo(Protocol):
    """What a store or a run records of a modality."""

    @property
    def width(self) -> int: ...
    @property
    def tokens(self) -> Any: ...
    @property
    def waveform(self) -> Any: ...


def build_model(config: MethodConfig, widths: Mapping[str, int], labels: Sequence[str]) -> Model:
    """Construct the model of a configuration section.

    Args:
        config: a section that names its method.
        widths: features per time step by modality, in the order of the M axis.
        labels: label names, in the order of the L axis.

    Raises:
        ConfigError: unknown method, or the model refuses the section.
    """
    model: Model = find_method(config.name).model_class()(widths, labels, config)
    return model


def build(
    config: MethodConfig,
    choices: Mapping[str, EncoderChoice],
    labels: Sequence[str],
    modalities: Mapping[str, ModalityInfo],
    run: Path | None = None,
) -> Model:
    """Construct the model of an experiment, with its encoders, for the modalities of a store or a run.

    Args:
        config: a section that names its method.
        choices: encoders by modality.
        labels: label names, in the order of the L axis.
        modalities: in the order of the M axis.
        run: folder of a finished run, from which encoders are constructed without weights; None loads them
            from the folders that the choices name.

    Raises:
        ConfigError: the choices do not fit the data, or the model refuses its section.
        DataError: an encoder's folder is refused.
    """
    encoders = {}
    _check(choices, modalities)
    for m, info in modalities.items():
        choice = choices.get(m)
        if choice is None or choice.kind == "transformer":
            continue
        folder = Path(choice.folder) if run is None else run / ENCODERS / m
        text = info.tokens is not None
        encoders[m] = PretrainedEncoder(folder, choice, text=text, weights=run is None)
        if text and digest(folder / TOKENIZER) != info.tokens.tokenizer:
            raise DataError(
                f"{folder / TOKENIZER}: another tokenizer than the one that made the tokens of {m}"
            )
        rate = encoders[m].sound.get("sampling_rate")
        if not text and rate not in (None, info.waveform.rate):
            raise DataError(
                f"{folder}: expects a sampling rate of {rate} Hz, but {m} was stored at "
                f"{info.waveform.rate} Hz; build the store with rate: {rate}"
            )
    widths = {m: encoders[m].width if m in encoders else x.width for m, x in modalities.items()}
    model = build_model(config, widths, labels)
    return EncodedModel(model, encoders) if encoders else model


def _check(choices: Mapping[str, EncoderChoice], modalities: Mapping[str, ModalityInfo]) -> None:
    for m in choices:
        if m not in modalities:
            hint = did_you_mean(m, modalities) or f"; there are: {', '.join(modalities)}"
            raise ConfigError(f"encoders: the data has no modality '{m}'{hint}")
    for m, info in modalities.items():
        encoded = m in choices and choices[m].kind == "pretrained"
        raw = "tokens" if info.tokens is not None else "sound" if info.waveform is not None else ""
        if raw and not encoded:
            raise ConfigError(f"modality '{m}' holds {raw}: name its encoder, encoders.{m}.folder")
        if encoded and not raw:
            raise ConfigError(
                f"encoders.{m}: the modality holds features; a pretrained encoder reads tokens or sound"
            )
