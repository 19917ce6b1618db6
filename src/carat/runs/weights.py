"""Weights of a run; those of a pretrained encoder may be left out, and are then taken from its own files.

A run without the weights of its encoder holds what training changed: 8-bit differences of matrices, with one
scale per row, and everything else as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carat.config.encoders import ENCODERS
from carat.features.models import MODELS, find_model
from carat.models.encoders.loading import BASE, LORA_A, read_published
from carat.runs.card import BaseEncoder, RunCard
from carat.runs.compatibility import rename_weights
from carat.runs.folder import WEIGHTS
from carat.utils.errors import RunError
from carat.utils.files import replace_file
from carat.utils.hugging_face import CONFIG, TOKENIZER
from carat.utils.hugging_face import WEIGHTS as PUBLISHED
from carat.utils.reading import check_regular

DIFFERENCE, SCALE = ".difference", ".scale"
"""Suffixes of the names of a difference (R, C) int8, and of its scale (R,) float32."""
UNUSED = ("pooler.", "embeddings.position_ids")
"""Prefixes of published weights that carat does not use."""
STEPS = 127
"""Largest absolute value of a difference."""


def read_weights(folder: Path, card: RunCard) -> dict[str, Any]:
    """Load the state dictionary of a finished run, with current names.

    Raises:
        OSError, SafetensorError: the weights cannot be read.
        RunError: they are not a regular file, or do not fit the encoder that they are differences from.
        DataError: that encoder is not on this machine, or differs from its publisher's.
    """
    from safetensors.torch import load_file

    check_regular(folder / WEIGHTS, RunError)
    weights = load_file(folder / WEIGHTS)
    for modality, base in card.bases.items():
        weights = _restore(weights, prefix_of(modality), _read_base(folder, base), str(folder / WEIGHTS))
    return rename_weights(weights) if card.schema_version < 2 else weights


def write_weights(out: Path, weights: Mapping[str, Any]) -> None:
    """Write a state dictionary as safetensors."""
    from safetensors.torch import save

    content = {name: x.detach().cpu().contiguous() for name, x in weights.items()}
    replace_file(out / WEIGHTS, save(content))  # `save_file` would restrict permissions to the user


def prefix_of(modality: str) -> str:
    """Prefix of the weights of a modality's encoder in the state dictionary of a run."""
    return f"{ENCODERS}.{modality}.model."


def recognize_base(card: RunCard, modality: str) -> BaseEncoder | None:
    """Recognize the published encoder that a run fine-tuned, by its configuration and tokenizer.

    Args:
        card: card of the run, which has checksums.
        modality: a modality with an encoder.

    Returns:
        The encoder, or None if it is none of those that carat knows.
    """
    own = {name: card.digests.get(f"{ENCODERS}/{modality}/{name}") for name in (CONFIG, TOKENIZER)}
    for model in MODELS.values():
        if PUBLISHED in model.files and all(model.files.get(name) == sha for name, sha in own.items()):
            return BaseEncoder(model=model.name, sha256=model.files[PUBLISHED])
    return None


def subtract(weights: Mapping[str, Tensor], modality: str, base: BaseEncoder) -> dict[str, Tensor]:
    """Replace the weights of an encoder by their differences from the published ones.

    Args:
        weights: state dictionary of a run.
        modality: modality of the encoder.
        base: the published encoder.

    Returns:
        State dictionary without weights that are equal, and with 8-bit differences of matrices.

    Raises:
        DataError: the encoder is not on this machine.
    """
    published, prefix = _read_base(Path(), base), prefix_of(modality)
    kept: dict[str, Tensor] = {}
    for name, value in weights.items():
        original = published.get(name.removeprefix(prefix).replace(BASE, ""))
        if original is None or original.shape != value.shape:
            kept[name] = value
        elif not torch.equal(original, value):
            if value.ndim == 2:
                kept[name + DIFFERENCE], kept[name + SCALE] = _quantize(value - original)
            else:
                kept[name] = value
    return kept


def _restore(
    weights: dict[str, Tensor], prefix: str, published: Mapping[str, Tensor], file: str
) -> dict[str, Tensor]:
    """Add the published weights of an encoder to those that a run holds.

    Raises:
        RunError: differences of other shapes.
    """
    restored = {name: x for name, x in weights.items() if not name.endswith((DIFFERENCE, SCALE))}
    adapted = {name.split(LORA_A)[0] for name in weights if LORA_A in name}
    for name, original in published.items():
        module, _, parameter = (prefix + name).rpartition(".")
        own = f"{module}{BASE}.{parameter}" if module in adapted else prefix + name
        difference, scale = weights.get(own + DIFFERENCE), weights.get(own + SCALE)
        if difference is None or scale is None:
            restored.setdefault(own, original)
            continue
        if difference.shape != original.shape or scale.shape != original.shape[:1]:
            raise RunError(f"{file}: corrupt, the difference of {name} has another shape")
        restored[own] = original + difference.float() * scale[:, None]
    return restored


def _quantize(difference: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix (R, C) to 8 bits per entry, with one scale per row."""
    scale = difference.abs().amax(1) / STEPS
    rounded = (difference / scale.clamp(min=torch.finfo(scale.dtype).tiny)[:, None]).round()
    return rounded.to(torch.int8), scale


def _read_base(folder: Path, base: BaseEncoder) -> dict[str, Tensor]:
    """Published weights by name.

    Raises:
        DataError: the encoder is not on this machine, or differs from its publisher's.
        RunError: this version does not know it.
    """
    model = MODELS.get(base.model)
    if model is None or model.files.get(PUBLISHED) != base.sha256:
        raise RunError(f"{folder}: was fine-tuned from '{base.model}' of another version; upgrade carat")
    published = read_published(find_model(base.model).folder)
    return {name: x for name, x in published.items() if not name.startswith(UNUSED)}
