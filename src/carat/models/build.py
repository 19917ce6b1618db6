"""From an experiment's choices to a method, with encoders in front where the data needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from carat.config.encoders import ENCODERS, EncoderChoice
from carat.models.base import Geometry, Model, build_method
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.models.encoders.wrapper import EncodedModel
from carat.utils.errors import ConfigError, DataError, did_you_mean
from carat.utils.hugging_face import TOKENIZER, digest


class Described(Protocol):
    """What a store or a run says of a modality."""

    @property
    def width(self) -> int: ...
    @property
    def tokens(self) -> Any: ...
    @property
    def waveform(self) -> Any: ...


def build(
    config: Any,
    choices: Mapping[str, EncoderChoice],
    labels: Sequence[str],
    modalities: Mapping[str, Described],
    run: Path | None = None,
) -> Model:
    """The method of an experiment, for the modalities of a store or a run.

    Args:
        config: the method's section.
        choices: of encoders, by modality.
        labels: names.
        modalities: in the order of the M axis.
        run: folder of a finished run, whose weights are to be loaded: it has all that is needed. Otherwise
            encoders come from the folders that their choices name.

    Raises:
        ConfigError: the choices do not fit the data, or the method refuses its section.
        DataError: a folder is refused.
    """
    encoders = {}
    _check(choices, modalities)
    for m, described in modalities.items():
        choice = choices.get(m)
        if choice is None or choice.kind == "transformer":
            continue
        folder = Path(choice.folder) if run is None else run / ENCODERS / m
        text = described.tokens is not None
        encoders[m] = PretrainedEncoder(folder, choice, text=text, weights=run is None)
        if text and digest(folder / TOKENIZER) != described.tokens.tokenizer:
            raise DataError(
                f"{folder / TOKENIZER}: another tokenizer than the one that made the tokens of {m}"
            )
        rate = encoders[m].sound.get("sampling_rate")
        if not text and rate not in (None, described.waveform.rate):
            raise DataError(
                f"{folder}: hears {rate} samples per second, {m} has {described.waveform.rate}; build the "
                f"store with rate: {rate}"
            )
    widths = {m: encoders[m].width if m in encoders else x.width for m, x in modalities.items()}
    model = build_method(config, Geometry(tuple(labels), widths))
    return EncodedModel(model, encoders) if encoders else model


def _check(choices: Mapping[str, EncoderChoice], modalities: Mapping[str, Described]) -> None:
    for m in choices:
        if m not in modalities:
            hint = did_you_mean(m, modalities) or f"; there are: {', '.join(modalities)}"
            raise ConfigError(f"encoders: the data has no modality '{m}'{hint}")
    for m, described in modalities.items():
        encoded = m in choices and choices[m].kind == "pretrained"
        raw = "tokens" if described.tokens is not None else "sound" if described.waveform is not None else ""
        if raw and not encoded:
            raise ConfigError(f"modality '{m}' holds {raw}: name what reads it, encoders.{m}.folder")
        if encoded and not raw:
            raise ConfigError(
                f"encoders.{m}: the modality holds features; a pretrained encoder reads tokens or sound"
            )
