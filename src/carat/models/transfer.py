"""Copying the weights of a trained model into another one, whose labels, modalities and sizes may differ."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor

from carat.config.encoders import EncoderChoice, LoraConfig
from carat.config.methods import MethodConfig, find_method
from carat.models.base import Model
from carat.models.build import ModalityInfo
from carat.models.carat.memory_bank import MemoryBank
from carat.models.encoders.loading import BASE, LORA_A, LORA_B
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.models.encoders.wrapper import EncodedModel

SEQUENCE_ENCODERS = "encoders."
"""Prefix of the sequence encoders of most methods, which are the same in all of them."""
POSITIONS = "positions"
"""Name of position embeddings, whose first axis is T."""

Keys = Mapping[str, Sequence[Hashable]]
"""Names of the indices of an axis, by its letter; indices with the same name correspond."""


@dataclass(frozen=True)
class ModelState:
    """The state of a trained model, and what it was built for."""

    config: MethodConfig
    choices: Mapping[str, EncoderChoice]
    labels: Sequence[str]
    modalities: Mapping[str, ModalityInfo]
    state: Mapping[str, Tensor]

    @property
    def encoded(self) -> list[str]:
        """Modalities with a pretrained encoder."""
        return [m for m, x in self.modalities.items() if x.tokens is not None or x.waveform is not None]

    def encoder_state(self, modality: str) -> dict[str, Tensor]:
        """State of a pretrained encoder."""
        return _below(self.state, f"encoders.{modality}.")

    def model_state(self) -> dict[str, Tensor]:
        """State of the method's own model."""
        return _below(self.state, "model.") if self.encoded else dict(self.state)


@dataclass
class Transferred:
    """Which tensors were copied."""

    encoders: list[str] = field(default_factory=list)
    """Modalities whose pretrained encoders were taken."""
    labels: list[str] = field(default_factory=list)
    """Labels of which weights were taken."""
    copied: list[str] = field(default_factory=list)
    """Tensors that were copied at least in part."""
    initial: list[str] = field(default_factory=list)
    """Tensors of which nothing was copied."""


@torch.no_grad()
def transfer_weights(
    model: Model,
    config: MethodConfig,
    modalities: Mapping[str, ModalityInfo],
    source: ModelState,
    parts: Literal["all", "trunk", "encoder"] = "all",
) -> Transferred:
    """Copy what fits of a trained model into a new one. No random numbers are drawn.

    A pretrained encoder is copied as a whole, if it has the same architecture and input. Between models of
    the same class all other tensors are copied by name: rows of labels and modalities by the names of these,
    see `Model.weight_axes`, and other axes must have the same size; a layer of which a tensor does not fit,
    such as its weight, is left as it is. Between models of different classes only their sequence encoders are
    copied. Memory banks are never copied.

    Args:
        model: model to change in place.
        config: its method section.
        modalities: its modalities, in the order of the M axis.
        source: the trained model.
        parts: "all"; "trunk", which leaves out tensors with an L axis; "encoder", pretrained encoders only.
    """
    taken, inner, prefix = Transferred(), model, ""
    if isinstance(model, EncodedModel):
        inner, prefix = model.model, "model."
        for m, encoder in model.encoders.items():
            assert isinstance(encoder, PretrainedEncoder)
            copied = same_input(source, m, modalities[m]) and _copy_encoder(encoder, m, source)
            taken.encoders += [m] * copied
            names = [f"encoders.{m}.{name}" for name in encoder.state_dict()]
            (taken.copied if copied else taken.initial).extend(names)
    own = {name: x for name, x in inner.state_dict().items() if name not in _memory(inner)}
    found: dict[str, _Rows] = {}
    if parts != "encoder" and inner.is_trainable:
        available = source.model_state()
        if find_method(config.name).model_class() is not find_method(source.config.name).model_class():
            available = {name: x for name, x in available.items() if name.startswith(SEQUENCE_ENCODERS)}
        found = _Matching(inner, list(modalities), source, parts == "all").find_all(own, available)
    for name, tensor in own.items():
        if name in found:
            found[name].copy(tensor, available[name])
        (taken.copied if name in found else taken.initial).append(f"{prefix}{name}")
    if any(rows.of_labels for rows in found.values()):
        taken.labels = [label for label in inner.labels if label in source.labels]
    return taken


def same_input(source: ModelState, modality: str, info: ModalityInfo) -> bool:
    """Whether a pretrained encoder of the source reads the tokens or the audio of a modality."""
    if modality not in source.encoded:
        return False
    known = source.modalities[modality]
    if known.tokens is None or info.tokens is None:
        both_audio = known.waveform is not None and info.waveform is not None
        return both_audio and bool(known.waveform.rate == info.waveform.rate)
    return bool(known.tokens.tokenizer == info.tokens.tokenizer)


def _copy_encoder(encoder: PretrainedEncoder, modality: str, source: ModelState) -> bool:
    """Copy a pretrained encoder; False if its architecture differs, so that nothing was copied."""
    own, trained = encoder.state_dict(), source.encoder_state(modality)
    lora = source.choices.get(modality, EncoderChoice()).lora
    if not (lora and encoder.choice.lora and _same_adapters(lora, encoder.choice.lora)):
        trained = merge_adapters(trained, lora)
        own = {
            name.replace(BASE, ""): x for name, x in own.items() if LORA_A not in name and LORA_B not in name
        }
    if own.keys() != trained.keys() or any(own[name].shape != trained[name].shape for name in own):
        return False
    for name, tensor in own.items():
        tensor.copy_(trained[name])
    return True


def _same_adapters(first: LoraConfig, second: LoraConfig) -> bool:
    return (first.rank, first.alpha) == (second.rank, second.alpha)


def merge_adapters(state: Mapping[str, Tensor], lora: LoraConfig | None) -> dict[str, Tensor]:
    """Add LoRA adapters to the weights that they adapt.

    Args:
        state: state of an encoder.
        lora: configuration of its adapters; None if it has none.

    Returns:
        The state of the same encoder without adapters.
    """
    merged = {}
    for name, tensor in state.items():
        if LORA_A in name or LORA_B in name:
            continue
        down = name.replace(f"{BASE}.weight", f"{LORA_A}.default.weight")
        if lora is not None and down != name and down in state:
            up = state[down.replace(LORA_A, LORA_B)]
            tensor = tensor + lora.alpha / lora.rank * (up @ state[down])
        merged[name.replace(BASE, "")] = tensor
    return merged


@dataclass(frozen=True)
class _Rows:
    """Corresponding elements of two tensors."""

    shape: list[int]
    """Shape of the tensor to change, its axes split into factors."""
    source_shape: list[int]
    """Shape of the source, likewise."""
    pairs: list[list[tuple[int, int]]]
    """Corresponding indices of both, along every factor."""
    of_labels: bool
    """Whether an axis is that of the labels."""

    def copy(self, own: Tensor, source: Tensor) -> None:
        """Copy the elements of the source."""
        changed = own.reshape(self.shape).clone()
        changed[self._grid(0)] = source.reshape(self.source_shape)[self._grid(1)]
        own.copy_(changed.view_as(own))

    def _grid(self, side: int) -> tuple[Tensor, ...]:
        """Indices that select the own (0) or the source's (1) elements."""
        indices = [torch.tensor([pair[side] for pair in pairs]) for pairs in self.pairs]
        return tuple(
            index.view([-1 if k == axis else 1 for k in range(len(indices))])
            for axis, index in enumerate(indices)
        )


class _Matching:
    """Correspondence of the axes of two models.

    Args:
        model: the model to change.
        modalities: its modalities, in the order of the M axis.
        source: the trained model.
        labels: whether to copy tensors with an L axis.
    """

    def __init__(self, model: Model, modalities: Sequence[str], source: ModelState, labels: bool) -> None:
        self.axes, self.in_order, self.labels = model.weight_axes, model.ordered_weights, labels
        self.own: Keys = {"L": list(model.labels), "M": list(modalities)}
        self.source: Keys = {"L": list(source.labels), "M": list(source.modalities)}
        self.same_order = self.own["M"] == self.source["M"]

    def find_all(self, own: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, _Rows]:
        """Corresponding elements of all tensors of layers whose tensors all have some."""
        found, unfit = {}, set()
        for name, tensor in own.items():
            rows = self.find(name, tensor, source[name]) if name in source else None
            if rows is None:
                unfit.add(_layer(name))
            else:
                found[name] = rows
        return {name: rows for name, rows in found.items() if _layer(name) not in unfit}

    def find(self, name: str, own: Tensor, source: Tensor) -> _Rows | None:
        """Which elements of a tensor correspond to which ones of the source; None if there are none."""
        if own.ndim != source.ndim or own.dtype != source.dtype:
            return None
        if not self.same_order and any(fnmatchcase(name, pattern) for pattern in self.in_order):
            return None
        axes = self._axes_of(name, own, source)
        if axes is None:
            return None
        own_axes, source_axes = split_axes(axes, own, self.own), split_axes(axes, source, self.source)
        of_labels = any(letter == "L" for letter, _ in own_axes)
        if of_labels and not self.labels:
            return None
        pairs = []
        for (letter, size), (_, trained) in zip(own_axes, source_axes, strict=True):
            if letter not in ("L", "M", "T") and size != trained:
                return None
            of_own, of_source = self.own.get(letter, range(size)), self.source.get(letter, range(trained))
            places = {key: i for i, key in enumerate(of_source)}
            pairs.append([(i, places[key]) for i, key in enumerate(of_own) if key in places])
        shapes = [[size for _, size in factors] for factors in (own_axes, source_axes)]
        return _Rows(shapes[0], shapes[1], pairs, of_labels) if all(pairs) else None

    def _axes_of(self, name: str, own: Tensor, source: Tensor) -> str | None:
        """Axes of a tensor as in `Model.weight_axes`; None if only one of both tensors has them."""
        if self.axes is None:
            return self._default_axes(own, source)
        declared = next((x for pattern, x in self.axes.items() if fnmatchcase(name, pattern)), "")
        if not declared and name.rpartition(".")[2] == POSITIONS:
            declared = "T D"
        fits = [
            bool(declared and split_axes(declared, x, keys))
            for x, keys in ((own, self.own), (source, self.source))
        ]
        if all(fits):
            return declared
        return None if any(fits) else " ".join("D" * own.ndim)

    def _default_axes(self, own: Tensor, source: Tensor) -> str | None:
        """Axes by their sizes; None where it is not clear how elements of an axis correspond."""
        axes = []
        for axis, sizes in enumerate(zip(own.shape, source.shape, strict=True)):
            fitting = [x for x in self.own if sizes == (len(self.own[x]), len(self.source[x]))]
            if axis and any(self.own[x] != self.source[x] for x in fitting):
                return None  # the inputs of a layer, of which any may have this width
            axes.append(fitting[0] if fitting and not axis else "D")
        return " ".join(axes)


def split_axes(axes: str, tensor: Tensor, keys: Keys) -> list[tuple[str, int]]:
    """Split the axes of a tensor into their factors.

    Args:
        axes: see `Model.weight_axes`.
        tensor: the tensor.
        keys: names of the indices of the axes L and M.

    Returns:
        Letter and size of each factor; empty if the tensor has other axes.

    >>> split_axes("M M*D D", torch.zeros(3, 15, 5), {"M": ["text", "visual", "audio"]})
    [('M', 3), ('M', 3), ('D', 5), ('D', 5)]
    """
    dimensions = axes.split()
    if len(dimensions) != tensor.ndim:
        return []
    factors: list[tuple[str, int]] = []
    for dimension, size in zip(dimensions, tensor.shape, strict=True):
        letters = dimension.split("*")
        known = {x: int(x) if x.isdecimal() else len(keys[x]) for x in letters if x.isdecimal() or x in keys}
        rest, remainder = divmod(size, math.prod(known[x] for x in letters if x in known))
        if remainder or (rest != 1 and len(known) == len(letters)):
            return []
        factors += [(x, known.get(x, rest)) for x in letters]
    return factors


def _memory(model: Model) -> set[str]:
    """Names of the tensors of memory banks."""
    return {
        f"{prefix}.{name}"
        for prefix, part in model.named_modules()
        if isinstance(part, MemoryBank)
        for name in part.state_dict()
    }


def _layer(name: str) -> str:
    """Name of the layer of a tensor."""
    return name.rpartition(".")[0]


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def shorten_names(names: Sequence[str], others: Iterable[str]) -> list[str]:
    """Replace the names of all tensors of a part of a model by the name of the part.

    Args:
        names: names of tensors.
        others: names of all other tensors of the model.

    >>> shorten_names(["a.x.weight", "a.x.bias", "b.weight"], ["a.y.weight", "b.bias"])
    ['a.x', 'b.weight']
    """
    kept = {prefix for name in others for prefix in _prefixes(name)}
    return list(dict.fromkeys(next((x for x in _prefixes(n) if x not in kept), n) for n in names))


def _prefixes(name: str) -> Iterator[str]:
    """Names of the parts that contain a tensor, from the outermost one."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        yield ".".join(parts[:depth])
