"""Conversion of weights of the authors' released code into a run."""

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
from carat.runs.card import ModalityCard, RunCard, write_card, write_weights
from carat.runs.environment import describe_environment
from carat.runs.folder import ENVIRONMENT, RUN, write_experiment
from carat.utils.errors import CaratError
from carat.utils.files import write_json
from carat.utils.output_folder import check_folder, claim

MODALITIES = ("text", "visual", "audio")
"""In the order of the released code's M axis."""
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
"""Under which a checkpoint may keep the state dictionary."""
THRESHOLD = 0.25
"""The published one."""


@dataclass(frozen=True)
class ReleasedSetting:
    """What the released code was trained on."""

    labels: tuple[str, ...]
    aligned: bool
    """Whether the data was; otherwise visual and audio pass an alignment first."""
    steps: Mapping[str, int]
    """Length to which every sequence was padded with unmasked zeros, by modality."""


SettingName = Literal["mosei-aligned", "mosei-unaligned", "m3ed"]
SETTINGS: dict[SettingName, ReleasedSetting] = {
    "mosei-aligned": ReleasedSetting(MOSEI, True, dict.fromkeys(MODALITIES, 60)),
    "mosei-unaligned": ReleasedSetting(MOSEI, False, {"text": 50, "visual": 500, "audio": 500}),
    "m3ed": ReleasedSetting(M3ED, True, dict.fromkeys(MODALITIES, 60)),
}


@dataclass(frozen=True)
class Piece:
    """Where one tensor of the released code lies among ours."""

    theirs: str
    ours: str
    place: tuple[int | slice, ...] = ()
    transposed: bool = False

    def view(self, state: Mapping[str, Tensor]) -> Tensor:
        """The place in a state dictionary of ours, in the released code's shape."""
        tensor = state[self.ours][self.place] if self.place else state[self.ours]
        return tensor.T if self.transposed else tensor


def pieces(model: Carat) -> list[Piece]:
    """Every weight and buffer of the released code that a model of the same sizes has, except the queue's
    classes and pointer, which have another form there."""
    config = model.config
    found = [Piece("queue", "memory_bank.rows")]
    for kind in ("weight", "bias"):
        found += [Piece(f"agg.linear.0.{kind}", f"network.aggregation.first.{kind}")]
        found += [Piece(f"agg.output.{kind}", f"network.aggregation.second.{kind}")]
    for place, m in enumerate(MODALITIES):
        found += _encoder(m, config.encoder.num_layers(m), config.hidden, config.encoder.pooler)
        found += [Piece(f"{m}_attention.attention.weight", f"network.label_attention.{m}.score.weight")]
        found += [Piece(f"{m}_clf_weight", "network.classifier", (place,))]
        for side, sign in enumerate(("pos", "neg")):
            found += [Piece(f"{m}_{sign}_protos", "network.prototypes.means", (place, slice(None), side))]
        stacked = {f"{REBUILD[m]}.output": "reconstruction.rebuild"}
        for prefix, part in (("proj", "encoder"), ("de_proj", "decoder")):
            stacked |= {f"{prefix}_{m}.linear.0": f"latent.{part}.first"}
            stacked |= {f"{prefix}_{m}.output": f"latent.{part}.second"}
        for theirs, ours in stacked.items():
            found += [Piece(f"{theirs}.weight", f"network.{ours}.weight", (place,), transposed=True)]
            found += [Piece(f"{theirs}.bias", f"network.{ours}.bias", (place,))]
        if m in config.alignment.modalities:
            lstm = f"{ALIGNMENT[m]}.pred_output_position_inclu_blank"
            for name in (f"{what}_l{i}" for what in LSTM for i in (0, 1)):
                found += [Piece(f"{lstm}.{name}", f"network.alignment.{m}.lstm.{name}")]
    return found


LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _encoder(m: str, layers: int, hidden: int, pooler: bool) -> Iterable[Piece]:
    ours = f"network.encoder.{m}"
    yield Piece(f"{m}.embeddings.position_embeddings.weight", f"{ours}.positions")
    for kind in ("weight", "bias"):
        yield Piece(f"{m}_norm.norm2d.{kind}", f"network.input_norm.{m}.{kind}")
        yield Piece(f"{m}.embeddings.word_embeddings.{kind}", f"{ours}.project.{kind}")
        yield Piece(f"{m}.embeddings.LayerNorm.{kind}", f"{ours}.norm.{kind}")
        if pooler:
            yield Piece(f"{m}.pooler.dense.{kind}", f"{ours}.pooler.{kind}")
        for i in range(layers):
            theirs = f"{m}.encoder.layer.{i}"
            for k, part in enumerate(("query", "key", "value")):
                rows = slice(k * hidden, (k + 1) * hidden)
                fused = f"{ours}.layers.{i}.query_key_value.{kind}"
                yield Piece(f"{theirs}.attention.self.{part}.{kind}", fused, (rows,))
            for own, their in LAYER.items():
                yield Piece(f"{theirs}.{their}.{kind}", f"{ours}.layers.{i}.{own}.{kind}")


def read_state(file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """A state dictionary from `.safetensors`, or from a pickled file of which only tensors are read.

    Prefixes `state/` (other entries are then left out) and `module.` are taken off.

    Raises:
        CaratError: the file cannot be read or holds something else.
    """
    path = Path(file)
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise CaratError(f"{path}: no such file") from error
        culprit = re.search(r"GLOBAL (\S+)", str(error))
        other = getattr(error, "strerror", None) or "no state dictionary"
        problem = f"it names '{culprit[1]}'" if culprit else other
        raise CaratError(f"{path}: no weights that can be read safely ({problem})") from error
    if isinstance(found, dict):
        found = next((found[key] for key in WRAPPERS if isinstance(found.get(key), dict)), found)
    if not isinstance(found, dict) or not found:
        raise CaratError(f"{path}: expected a state dictionary, found {type(found).__name__}")
    state: dict[str, Tensor] = dict(found)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CaratError(f"{path}: '{name}' is no tensor but {type(value).__name__}; save the state_dict")
    for prefix, others in (("state/", True), ("module.", False)):
        named = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        if named and (others or len(named) == len(state)):
            state = named
    return state


def read_sizes(state: Mapping[str, Tensor], aligned: bool) -> tuple[dict[str, Any], dict[str, int]]:
    """Sizes of the model that a state dictionary of the released code belongs to.

    Args:
        state: the state dictionary.
        aligned: whether the data was; otherwise visual and audio pass an alignment first.

    Returns:
        Changes to the method section of preset `official`, and the features per time step by modality.

    Raises:
        CaratError: a key that they are read from is missing.
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

    Returns:
        The keys that are not used on purpose: those of the poolers, if the model has none.

    Raises:
        CaratError: names the first key that is missing, unknown or of another shape.
    """
    wanted = pieces(model)
    hidden = model.config.hidden
    rows = model.config.contrast.queue
    own = model.state_dict()
    shapes = {piece.theirs: tuple(piece.view(own).shape) for piece in wanted}
    shapes |= {QUEUE_CLASSES: (rows, 1), QUEUE_POINTER: (1,)}
    poolers = {f"{m}.pooler.dense.{kind}" for m in MODALITIES for kind in ("weight", "bias")} - shapes.keys()
    shapes |= {key: (hidden, hidden) if key.endswith("weight") else (hidden,) for key in poolers}
    for key, shape in shapes.items():
        if key not in state:
            raise CaratError(f"'{key}' is missing")
        if tuple(state[key].shape) != shape:
            raise CaratError(f"'{key}' has shape {tuple(state[key].shape)}, expected {shape}")
        if not state[key].is_contiguous():
            raise CaratError(f"'{key}' is stored transposed, as no training leaves it")
        if not state[key].isfinite().all():
            raise CaratError(f"'{key}' holds inf or NaN")
    for key in state:
        if key not in shapes:
            raise CaratError(f"unknown key '{key}'")
    with torch.no_grad():
        for piece in wanted:
            piece.view(own).copy_(state[piece.theirs])
        own["memory_bank.classes"].copy_(queue_classes(state[QUEUE_CLASSES], model))
        own["memory_bank.pointer"].copy_(state[QUEUE_POINTER][0])
    return sorted(poolers)


def queue_classes(written: Tensor, model: Carat) -> Tensor:
    """Classes (K,) from the released code's floats (K, 1), of which those of noise name no class."""
    classes = written.flatten().double()
    named = (classes == classes.round()) & (classes >= 0) & (classes < 6 * len(model.labels))
    return torch.where(named, classes, NOISE).long()


def convert(
    file: str | os.PathLike[str],
    trained_on: SettingName,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> RunCard:
    """Turn weights of the released code into a run folder of preset `official`.

    Args:
        file: state dictionary, see `read_state`.
        trained_on: corpus and form of its features; sets the labels, their order, and whether visual and
            audio pass an alignment first.
        out: folder of the run to make.
        overwrite: replace an existing run.

    Raises:
        CaratError: the file cannot be read, or a key is missing, unknown or of another shape.
        RunError: the folder holds something else, or another process works in it; nothing was changed.
    """
    path, folder, chosen = Path(file), Path(out), SETTINGS[trained_on]
    check_folder(RUN, folder, overwrite=overwrite)
    state = read_state(path)
    try:
        changes, widths = read_sizes(state, chosen.aligned)
        changes["encoder"]["pooler"] = False
        experiment = load_experiment(preset="official", overrides={"method": changes})
        assert isinstance(experiment.method, CaratConfig)
        model = Carat(widths, chosen.labels, experiment.method)
        unused = load_released(model, state)
    except CaratError as error:
        raise CaratError(f"{path}, trained on {trained_on}: {error}") from error
    positions = model.max_length
    card = RunCard(
        labels=list(chosen.labels),
        modalities={
            m: ModalityCard(width=d, source=trained_on, pad_to=min(chosen.steps[m], positions[m]))
            for m, d in widths.items()
        },
        store="",
        fingerprint="",
        epoch=0,
        thresholds=dict.fromkeys(chosen.labels, THRESHOLD),
        validation={},
        notes=[
            f"weights of the released code, from {path.name}; threshold {THRESHOLD} as published",
            f"knowingly unused: {', '.join(unused)}",
        ],
    )
    with claim(RUN, folder, overwrite=overwrite):
        write_json(folder / ENVIRONMENT, describe_environment())
        write_experiment(folder, experiment)
        write_weights(folder, model.state_dict())
        write_card(folder, card)
    return card
