"""A pretrained encoder of one modality: tokens (B, T, 1 or 2) or sound (B, T, 1) → states (B, T', d)."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.encoders import EncoderChoice
from carat.models.encoders.bert import Bert
from carat.models.encoders.loading import layers_of, load_model
from carat.models.layers.packing import PackedBatch, pack_batch
from carat.utils.errors import DataError
from carat.utils.hugging_face import CONFIG, SPEECH, TOKENIZER, longest_text, read_config

NEEDED = (
    "hidden_size",
    "num_hidden_layers",
    "max_position_embeddings",
    "pad_token_id",
    "type_vocab_size",
    "conv_kernel",
    "conv_stride",
)
"""Keys read from a configuration, by the names that all of transformers' configurations answer to."""


class PretrainedEncoder(nn.Module):
    """A model from a local folder, wholly or partly trainable.

    Args:
        folder: of the model.
        choice: which layers are trained, and how.
        text: whether it reads tokens; sound otherwise.
        weights: whether to load the folder's weights.

    Raises:
        DataError, ConfigError: see `load_model`.
    """

    def __init__(self, folder: Path, choice: EncoderChoice, *, text: bool, weights: bool = True) -> None:
        super().__init__()
        self.folder, self.choice, self.text = folder, choice, text
        self.model: Any = load_model(folder, choice, text=text, weights=weights)
        self.config = read_config(folder)
        """The model's configuration; keys that the folder leaves out have their published values."""
        own = getattr(self.model, "config", None)
        if own is not None:
            self.config |= {name: getattr(own, name) for name in NEEDED if hasattr(own, name)}
        self.width = int(self.config["hidden_size"])
        self._knows_types = "token_type_ids" in inspect.signature(self.model.forward).parameters and (
            int(self.config.get("type_vocab_size") or 0) > 1
        )
        self.sound: dict[str, Any] = {}
        if not text:
            self.sound = read_config(folder, SPEECH) if (folder / SPEECH).is_file() else {}
        self._set_trainable_layers()
        self.frozen = False
        """Whether the encoder is frozen this epoch."""
        self.train()

    @property
    def files(self) -> list[str]:
        """Files of the folder that are needed besides the weights."""
        wanted = (CONFIG, TOKENIZER) if self.text else (CONFIG, SPEECH)
        return [name for name in wanted if (self.folder / name).is_file()]

    def max_input_length(self, steps: int) -> int:
        """Longest input for which it returns at most this many steps."""
        if self.text:
            return min(steps, longest_text(self.config))
        samples = steps
        pairs = zip(self.config["conv_kernel"], self.config["conv_stride"], strict=True)
        for kernel, stride in reversed(list(pairs)):
            samples = (samples - 1) * stride + kernel
        return samples

    def learning_rates(self) -> Iterator[tuple[nn.Parameter, float]]:
        """Trainable parameters and their peak learning rates."""
        highest, decay = self.choice.learning_rate, self.choice.layer_decay
        every = ((parameter, 0) for parameter in self.model.parameters())
        for parameter, below in self._depths() if decay < 1 else every:
            if parameter.requires_grad:
                yield parameter, highest * decay**below

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Training mode, but evaluation mode while nothing is trained: no dropout in a frozen encoder."""
        trained = any(parameter.requires_grad for parameter in self.parameters()) and not self.frozen
        super().train(mode and trained)
        return self

    def freeze(self, frozen: bool) -> None:
        """Freeze or unfreeze the encoder during training."""
        if frozen != self.frozen:
            self.frozen = frozen
            self.train()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            x: (B, T, 1) token ids or audio samples; (B, T, 2) token ids and token types: a text's own
                tokens (0), which come first, and its context's (1).
            mask: (B, T), valid = True; samples without any valid step cost nothing on a CPU.

        Returns:
            Hidden states (B, T', d), zeros where not valid, and their mask (B, T'): of a text's own tokens.
        """
        with self._autocast(x.device), self._grad_mode():
            return self._encode_text(x, mask) if self.text else self._encode_sound(x, mask)

    def _encode_text(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        own = mask & (x[..., 1] == 0) if x.shape[-1] > 1 else mask
        if self.training and own is not mask:
            # from the global generator, like dropout
            alone = torch.rand(len(mask), 1, device=x.device) < self.choice.context_dropout
            mask = torch.where(alone, own, mask)
        batch, packed = len(mask), pack_batch(mask)
        chosen, steps = packed.select(x).long(), packed.whole.mask.shape[1]
        if not packed.whole.mask.numel():
            return torch.zeros(batch, 1, self.width, device=x.device), mask[:, :1]
        ids, types = chosen[..., 0], chosen[..., 1] if x.shape[-1] > 1 else None
        read = self.model if isinstance(self.model, Bert) else self._grouped
        states = read(ids, packed, types)
        valid = own[:, :steps]
        return packed.restore(states.float(), batch) * valid[..., None], valid

    def _grouped(self, ids: Tensor, packed: PackedBatch, types: Tensor | None) -> Tensor:
        """Hidden states (R, T, d) of token ids (R, T), by a model that takes padded batches only."""
        if not self._knows_types:
            types = None
        padding, first = int(self.config["pad_token_id"] or 0), 0
        parts = []
        for group in packed.groups:
            rows, length = group.mask.shape
            some = ids[first : first + rows, :length].masked_fill(~group.mask, padding)
            typed = {} if types is None else {"token_type_ids": types[first : first + rows, :length]}
            states = self.model(input_ids=some, attention_mask=group.mask.long(), **typed).last_hidden_state
            parts.append(nn.functional.pad(states, (0, 0, 0, ids.shape[1] - length)))
            first += rows
        return torch.cat(parts)

    def _encode_sound(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Sample by sample: some of these models normalize over time, padding included."""
        parts = [self._encode_wave(x[i, mask[i], 0].float()) for i in range(len(x))]
        longest = max([len(part) for part in parts] + [1])
        states = torch.stack([nn.functional.pad(part, (0, 0, 0, longest - len(part))) for part in parts])
        lengths = torch.tensor([len(part) for part in parts], device=x.device)
        return states, torch.arange(longest, device=x.device) < lengths[:, None]

    def _encode_wave(self, wave: Tensor) -> Tensor:
        """Samples (T,) → hidden states (T', d); T' is 0 if the sound is too short."""
        if len(wave) < self.max_input_length(1):
            return wave.new_zeros(0, self.width)
        if self.sound.get("do_normalize", True):
            wave = (wave - wave.mean()) / (wave.var(unbiased=False) + 1e-7).sqrt()
        states: Tensor = self.model(wave[None]).last_hidden_state[0].float()
        return states

    @contextmanager
    def _grad_mode(self) -> Iterator[None]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            yield

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        wanted = self.choice.precision
        trained = self.training or (self.frozen and torch.is_grad_enabled())
        bf16 = trained and (wanted == "bf16" or (wanted == "auto" and has_bf16(device)))
        already = torch.is_autocast_enabled(device.type)
        return torch.autocast(device.type, torch.bfloat16, enabled=bf16 or already)

    def _depths(self) -> Iterable[tuple[nn.Parameter, int]]:
        """Every parameter with the number of layers above it."""
        layers = layers_of(self.model, self.config["num_hidden_layers"])
        place = {id(p): len(layers) - 1 - i for i, layer in enumerate(layers) for p in layer.parameters()}
        below = len(layers)
        for parameter in self.model.parameters():
            if id(parameter) in place:
                yield parameter, place[id(parameter)]
                below = 0
            else:
                yield parameter, below

    def _set_trainable_layers(self) -> None:
        kept = self.choice.train_layers
        if kept is None:
            return
        layers = layers_of(self.model, self.config["num_hidden_layers"])
        if kept > len(layers):
            raise DataError(f"{self.folder}: train_layers is {kept}, but the model has {len(layers)} layers")
        for parameter, below in self._depths():
            parameter.requires_grad_(below < kept)


@cache
def has_bf16(device: torch.device) -> bool:
    """Whether a device has native bf16 matrix products."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # an older PyTorch
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
