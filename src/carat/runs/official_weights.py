"""Conversion of the released code's weights into a run."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from carat.config.carat import CaratConfig
from carat.config.experiment import load_experiment
from carat.data.corpora.labels import M3ED, MOSEI
from carat.models.carat.memory_bank import NOISE
from carat.models.carat.model import Carat
from carat.runs.card import ModalityCard, RunCard, write_card
from carat.runs.environment import describe_environment
from carat.runs.folder import ENVIRONMENT, RUN, write_experiment
from carat.runs.weights import write_weights
from carat.utils.errors import CaratError
from carat.utils.files import write_json
from carat.utils.output_folder import check_folder, replacing
from carat.utils.reading import check_regular

MODALITIES = ("text", "visual", "audio")
"""Modalities in the order of the released code's M axis."""
ALIGNMENT = {"visual": "v2t_ctc", "audio": "a2t_ctc"}
REBUILD = {"text": "va2t", "visual": "ta2v", "audio": "tv2a"}
LAYER = {
    "out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
QUEUE_CLASSES, QUEUE_POINTER = "queue_label", "queue_ptr"
WRAPPERS = ("state_dict", "model_state_dict")
"""Keys under which a checkpoint may contain the state dictionary."""
THRESHOLD = 0.25
"""Published decision threshold."""


@dataclass(frozen=True)
class ReleasedSetting:
    """Dataset and preprocessing that the released code was trained on."""

    labels: tuple[str, ...]
    aligned: bool
    """Whether modalities are aligned; otherwise visual and audio pass the alignment module."""
    steps: Mapping[str, int]
    """Length to which sequences were padded with unmasked zeros, by modality."""


SettingName = Literal["mosei-aligned", "mosei-unaligned", "m3ed"]
SETTINGS: dict[SettingName, ReleasedSetting] = {
    "mosei-aligned": ReleasedSetting(MOSEI, True, dict.fromkeys(MODALITIES, 60)),
    "mosei-unaligned": ReleasedSetting(MOSEI, False, {"text": 50, "visual": 500, "audio": 500}),
    "m3ed": ReleasedSetting(M3ED, True, dict.fromkeys(MODALITIES, 60)),
}


@dataclass(frozen=True)
class WeightMapping:
    """Correspondence of one released tensor to a slice of a tensor of `Carat`."""

    released: str
    own: str
    index: tuple[int | slice, ...] = ()
    transposed: bool = False

    def view(self, state: Mapping[str, Tensor]) -> Tensor:
        """View of the tensor in a state dictionary of `Carat`, in the released shape."""
        tensor = state[self.own][self.index] if self.index else state[self.own]
        return tensor.T if self.transposed else tensor


def weight_mappings(model: Carat) -> list[WeightMapping]:
    """Map all weights and buffers of the released code to those of a model of the same sizes.

    The classes and the pointer of the queue are not included, because they have another format.
    """
    config = model.config
    mappings = [WeightMapping("queue", "memory_bank.rows")]
    for kind in ("weight", "bias"):
        mappings += [WeightMapping(f"agg.linear.0.{kind}", f"network.aggregation.first.{kind}")]
        mappings += [WeightMapping(f"agg.output.{kind}", f"network.aggregation.second.{kind}")]
    for i, m in enumerate(MODALITIES):
        mappings += _encoder(m, config.encoder.num_layers(m), config.hidden, config.encoder.pooler)
        mappings += [
            WeightMapping(f"{m}_attention.attention.weight", f"network.label_attention.{m}.score.weight")
        ]
        mappings += [WeightMapping(f"{m}_clf_weight", "network.classifier", (i,))]
        for side, sign in enumerate(("pos", "neg")):
            mappings += [
                WeightMapping(f"{m}_{sign}_protos", "network.prototypes.means", (i, slice(None), side))
            ]
        stacked = {f"{REBUILD[m]}.output": "reconstruction.rebuild"}
        for prefix, part in (("proj", "encoder"), ("de_proj", "decoder")):
            stacked |= {f"{prefix}_{m}.linear.0": f"latent.{part}.first"}
            stacked |= {f"{prefix}_{m}.output": f"latent.{part}.second"}
        for released, own in stacked.items():
            mappings += [WeightMapping(f"{released}.weight", f"network.{own}.weight", (i,), transposed=True)]
            mappings += [WeightMapping(f"{released}.bias", f"network.{own}.bias", (i,))]
        if m in config.alignment.modalities:
            lstm = f"{ALIGNMENT[m]}.pred_output_position_inclu_blank"
            for name in (f"{parameter}_l{layer}" for parameter in LSTM for layer in (0, 1)):
                mappings += [WeightMapping(f"{lstm}.{name}", f"network.alignment.{m}.lstm.{name}")]
    return mappings


LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _encoder(m: str, layers: int, hidden: int, pooler: bool) -> Iterable[WeightMapping]:
    """Map the weights of one encoder."""
    own = f"network.encoder.{m}"
    yield WeightMapping(f"{m}.embeddings.position_embeddings.weight", f"{own}.positions")
    for kind in ("weight", "bias"):
        yield WeightMapping(f"{m}_norm.norm2d.{kind}", f"network.input_norm.{m}.{kind}")
        yield WeightMapping(f"{m}.embeddings.word_embeddings.{kind}", f"{own}.project.{kind}")
        yield WeightMapping(f"{m}.embeddings.LayerNorm.{kind}", f"{own}.norm.{kind}")
        if pooler:
            yield WeightMapping(f"{m}.pooler.dense.{kind}", f"{own}.pooler.{kind}")
        for i in range(layers):
            released = f"{m}.encoder.layer.{i}"
            for k, part in enumerate(("query", "key", "value")):
                rows = slice(k * hidden, (k + 1) * hidden)
                fused = f"{own}.layers.{i}.query_key_value.{kind}"
                yield WeightMapping(f"{released}.attention.self.{part}.{kind}", fused, (rows,))
            for own_part, released_part in LAYER.items():
                yield WeightMapping(
                    f"{released}.{released_part}.{kind}", f"{own}.layers.{i}.{own_part}.{kind}"
                )


def read_state(file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Load a state dictionary from `.safetensors`, or from a PyTorch file restricted to tensors.

    The prefixes `state/` (other entries are then ignored) and `module.` are removed.

    Raises:
        CaratError: the file cannot be read, or contains something else.
    """
    path = Path(file)
    check_regular(path, CaratError)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        pickled = re.search(r"GLOBAL (\S+)", str(error))
        other = getattr(error, "strerror", None) or "no state dictionary"
        problem = f"it references '{pickled[1]}'" if pickled else other
        raise CaratError(f"{path}: weights cannot be loaded safely ({problem})") from error
    if isinstance(content, dict):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content:
        raise CaratError(f"{path}: expected a state dictionary, found {type(content).__name__}")
    state: dict[str, Tensor] = dict(content)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CaratError(
                f"{path}: '{name}' is {type(value).__name__}, expected a tensor; save the state_dict"
            )
    for prefix, ignore_others in (("state/", True), ("module.", False)):
        stripped = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        if stripped and (ignore_others or len(stripped) == len(state)):
            state = stripped
    return state


def read_sizes(state: Mapping[str, Tensor], aligned: bool) -> tuple[dict[str, Any], dict[str, int]]:
    """Infer the sizes of the model from a state dictionary of the released code.

    Args:
        state: the state dictionary.
        aligned: whether modalities are aligned; otherwise visual and audio pass the alignment module.

    Returns:
        Overrides of the method section of the preset `official`, and features per time step by modality.

    Raises:
        CaratError: a required key is missing.
    """

    def size(key: str) -> int:
        if key not in state:
            raise CaratError(f"'{key}' is missing")
        return len(state[key]) if state[key].ndim else 0

    layers = {}
    for m in MODALITIES:
        numbers = [re.match(rf"{m}\.encoder\.layer\.(\d+)\.", key) for key in state]
        layers[m] = 1 + max((int(match[1]) for match in numbers if match), default=0)
    changes: dict[str, Any] = {
        "hidden": size("text.embeddings.LayerNorm.weight"),
        "latent": size("proj_text.output.bias"),
        "encoder": {
            "layers": layers,
            "feedforward": size("text.encoder.layer.0.intermediate.dense.bias"),
            "max_lengths": {m: size(f"{m}.embeddings.position_embeddings.weight") for m in MODALITIES},
        },
        "contrast": {"queue": size("queue")},
    }
    if not aligned:
        steps = size("v2t_ctc.pred_output_position_inclu_blank.bias_ih_l0") // 4 - 1
        changes["alignment"] = {"modalities": list(ALIGNMENT), "steps": steps}
    return changes, {m: size(f"{m}_norm.norm2d.weight") for m in MODALITIES}


def load_released(model: Carat, state: Mapping[str, Tensor]) -> list[str]:
    """Copy a state dictionary of the released code into a model of the same sizes.

    Args:
        model: model to modify in place.
        state: state dictionary of the released code.

    Returns:
        Keys that are ignored: those of the poolers, if the model has none.

    Raises:
        CaratError: a key is missing or unknown, or a tensor has another shape or non-finite values.
    """
    mappings = weight_mappings(model)
    hidden = model.config.hidden
    rows = model.config.contrast.queue
    own = model.state_dict()
    shapes = {mapping.released: tuple(mapping.view(own).shape) for mapping in mappings}
    shapes |= {QUEUE_CLASSES: (rows, 1), QUEUE_POINTER: (1,)}
    poolers = {f"{m}.pooler.dense.{kind}" for m in MODALITIES for kind in ("weight", "bias")} - shapes.keys()
    shapes |= {key: (hidden, hidden) if key.endswith("weight") else (hidden,) for key in poolers}
    for key, shape in shapes.items():
        if key not in state:
            raise CaratError(f"'{key}' is missing")
        if tuple(state[key].shape) != shape:
            raise CaratError(f"'{key}' has shape {tuple(state[key].shape)}, expected {shape}")
        if not state[key].is_contiguous():
            raise CaratError(f"'{key}' is not contiguous")
        if not state[key].isfinite().all():
            raise CaratError(f"'{key}' contains inf or NaN")
    for key in state:
        if key not in shapes:
            raise CaratError(f"unknown key '{key}'")
    with torch.no_grad():
        for mapping in mappings:
            mapping.view(own).copy_(state[mapping.released])
        own["memory_bank.classes"].copy_(queue_classes(state[QUEUE_CLASSES], model))
        own["memory_bank.pointer"].copy_(state[QUEUE_POINTER][0])
    return sorted(poolers)


def queue_classes(stored: Tensor, model: Carat) -> Tensor:
    """Convert the released code's queue labels to classes.

    Args:
        stored: (K, 1) floats; rows of noise have values that are not classes.
        model: model with the label names.

    Returns:
        (K,) integers, with `NOISE` in rows of noise.
    """
    classes = stored.flatten().double()
    valid = (classes == classes.round()) & (classes >= 0) & (classes < 6 * len(model.labels))
    return torch.where(valid, classes, NOISE).long()


def convert(
    file: str | os.PathLike[str],
    trained_on: SettingName,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> RunCard:
    """Convert weights of the released code to a run of the preset `official`.

    Args:
        file: state dictionary, see `read_state`.
        trained_on: dataset and preprocessing; determines the labels, their order, and whether visual and
            audio pass the alignment module.
        out: run folder to create.
        overwrite: replace an existing run.

    Returns:
        The card of the run.

    Raises:
        CaratError: the file cannot be read, or does not match the released model.
        RunError: the folder contains other files or is in use by another process; nothing was changed.
    """
    path, folder, setting = Path(file), Path(out), SETTINGS[trained_on]
    check_folder(RUN, folder, overwrite=overwrite)
    state = read_state(path)
    try:
        changes, widths = read_sizes(state, setting.aligned)
        changes["encoder"]["pooler"] = False
        experiment = load_experiment(preset="official", overrides={"method": changes})
        assert isinstance(experiment.method, CaratConfig)
        model = Carat(widths, setting.labels, experiment.method)
        unused = load_released(model, state)
    except CaratError as error:
        raise CaratError(f"{path}, trained on {trained_on}: {error}") from error
    positions = model.max_length
    card = RunCard(
        labels=list(setting.labels),
        modalities={
            m: ModalityCard(width=d, source=trained_on, pad_to=min(setting.steps[m], positions[m]))
            for m, d in widths.items()
        },
        store="",
        fingerprint="",
        epoch=0,
        thresholds=dict.fromkeys(setting.labels, THRESHOLD),
        validation={},
        notes=[
            f"weights of the released code, from {path.name}; threshold {THRESHOLD} as published",
            f"ignored weights: {', '.join(unused)}",
        ],
    )
    with replacing(RUN, folder, overwrite=overwrite) as new:
        write_json(new / ENVIRONMENT, describe_environment())
        write_experiment(new, experiment)
        write_weights(new, model.state_dict())
        write_card(new, card)
    return card
