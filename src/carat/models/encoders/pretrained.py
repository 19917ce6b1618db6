"""A pretrained encoder of one modality: token ids (B, T, 1 or 2) or waveforms (B, T, 1) → (B, T', D)."""

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
from carat.models.encoders.loading import find_layers, load_model
from carat.models.encoders.mpnet import Mpnet
from carat.models.layers.packing import PackedBatch, pack_batch
from carat.utils.errors import DataError
from carat.utils.hugging_face import CONFIG, SPEECH, TOKENIZER, longest_text, read_config

CONFIG_KEYS = (
    "hidden_size",
    "num_hidden_layers",
    "max_position_embeddings",
    "pad_token_id",
    "type_vocab_size",
    "conv_kernel",
    "conv_stride",
)
"""Configuration keys in use; transformers' configuration classes map their own names to these."""


class PretrainedEncoder(nn.Module):
    """A pretrained model from a local folder, with its lower layers frozen as configured.

    Args:
        folder: see `check_folder`.
        choice: which parameters are trained, and how.
        text: whether inputs are token ids; otherwise they are waveforms.
        weights: whether to read the folder's weights.

    Raises:
        DataError: see `load_model`; also if more layers are to be trained than the model has.
        ConfigError: see `load_model`.
    """

    def __init__(self, folder: Path, choice: EncoderChoice, *, text: bool, weights: bool = True) -> None:
        super().__init__()
        self.folder, self.choice, self.text = folder, choice, text
        self.model: Any = load_model(folder, choice, text=text, weights=weights)
        self.config = read_config(folder)
        """Contents of `config.json`; transformers fills in missing keys of the models that it builds."""
        model_config = getattr(self.model, "config", None)
        if model_config is not None:
            self.config |= {k: getattr(model_config, k) for k in CONFIG_KEYS if hasattr(model_config, k)}
        self._check_kind()
        self.width = int(self.config["hidden_size"])
        self._has_token_types = "token_type_ids" in inspect.signature(self.model.forward).parameters and (
            int(self.config.get("type_vocab_size") or 0) > 1
        )
        self.sound: dict[str, Any] = {}
        """Configuration of a speech model's feature extractor; empty if the folder has none."""
        if not text:
            self.sound = read_config(folder, SPEECH) if (folder / SPEECH).is_file() else {}
        self._freeze_lower_layers()
        self.frozen = False
        """Whether the encoder is frozen in this epoch."""
        self._try_out()
        self.train()

    def _check_kind(self) -> None:
        """Raise DataError unless the model takes the kind of inputs that the modality has."""
        inputs = inspect.signature(self.model.forward).parameters
        expected, kind = ("input_ids", "text") if self.text else ("input_values", "audio")
        speech_keys = ("conv_kernel", "conv_stride") if not self.text else ()
        if expected not in inputs or not all(
            isinstance(self.config.get(key), list | tuple) for key in speech_keys
        ):
            raise DataError(
                f"{self.folder}: a model of type {self.config['model_type']} does not encode {kind}; "
                + ("expected one like BERT" if self.text else "expected one like wav2vec2 or HuBERT")
            )
        if "hidden_size" not in self.config:
            raise DataError(f"{self.folder / CONFIG}: has no hidden_size")

    def _try_out(self) -> None:
        """Encode the shortest input, so that an invalid configuration is found before training.

        Raises:
            DataError: the model fails, or returns something else than hidden states (1, T, D).
        """
        self.eval()
        try:
            with torch.inference_mode():
                steps = 1 if self.text else self.input_length(1)
                states, _ = self(torch.zeros(1, steps, 1), torch.ones(1, steps, dtype=torch.bool))
        except Exception as error:  # a model may raise anything
            reason = (str(error).splitlines() or [""])[0]
            raise DataError(f"{self.folder}: cannot encode ({type(error).__name__}: {reason})") from error
        if states.shape != (1, 1, self.width):
            raise DataError(
                f"{self.folder}: hidden states have shape {tuple(states.shape)}, but {CONFIG} has a "
                f"hidden_size of {self.width}"
            )

    @property
    def files(self) -> list[str]:
        """Files of the folder that a run needs besides the weights."""
        names = (CONFIG, TOKENIZER) if self.text else (CONFIG, SPEECH)
        return [name for name in names if (self.folder / name).is_file()]

    def input_length(self, steps: int) -> int:
        """Input length for a given number of hidden states.

        Args:
            steps: number of hidden states T'.

        Returns:
            The number of tokens, at most the model's maximum; or the shortest waveform, in samples.
        """
        if self.text:
            return min(steps, longest_text(self.config))
        samples = steps
        pairs = zip(self.config["conv_kernel"], self.config["conv_stride"], strict=True)
        for kernel, stride in reversed(list(pairs)):
            samples = (samples - 1) * stride + kernel
        return samples

    def learning_rates(self) -> Iterator[tuple[nn.Parameter, float]]:
        """Trainable parameters and their peak learning rates."""
        peak, decay = self.choice.learning_rate, self.choice.layer_decay
        undecayed = ((parameter, 0) for parameter in self.model.parameters())
        for parameter, depth in self._depths() if decay < 1 else undecayed:
            if parameter.requires_grad:
                yield parameter, peak * decay**depth

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        trainable = any(parameter.requires_grad for parameter in self.parameters()) and not self.frozen
        super().train(mode and trainable)
        return self

    def set_frozen(self, frozen: bool) -> None:
        """Freeze or unfreeze the encoder during training."""
        if frozen != self.frozen:
            self.frozen = frozen
            self.train()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            x: (B, T, 1) token ids or audio samples, or (B, T, 2) token ids and token types: 0 for the
                text itself, which comes first, and 1 for its context.
            mask: (B, T) bool, valid = True; on a CPU, samples without valid steps are skipped.

        Returns:
            Hidden states (B, T', D), zeros where not valid, and their mask (B, T'), which excludes context.
        """
        with self._autocast(x.device), self._grad_mode():
            return self._encode_tokens(x, mask) if self.text else self._encode_waveforms(x, mask)

    def _encode_tokens(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        text_mask = mask & (x[..., 1] == 0) if x.shape[-1] > 1 else mask
        if self.training and text_mask is not mask:
            # like dropout, from the global generator, which is reseeded at every step
            drop_context = torch.rand(len(mask), 1, device=x.device) < self.choice.context_dropout
            mask = torch.where(drop_context, text_mask, mask)
        batch, packed = len(mask), pack_batch(mask)
        selected, steps = packed.select(x).long(), packed.whole.mask.shape[1]
        if not packed.whole.mask.numel():
            return torch.zeros(batch, 1, self.width, device=x.device), mask[:, :1]
        input_ids, token_type_ids = selected[..., 0], selected[..., 1] if x.shape[-1] > 1 else None
        encode = self.model if isinstance(self.model, Bert | Mpnet) else self._encode_groups
        states = encode(input_ids, packed, token_type_ids)
        valid = text_mask[:, :steps]
        return packed.restore(states.float(), batch) * valid[..., None], valid

    def _encode_groups(self, input_ids: Tensor, packed: PackedBatch, token_type_ids: Tensor | None) -> Tensor:
        """Hidden states (R, T, D) of token ids (R, T), by a model that takes padded batches only."""
        if not self._has_token_types:
            token_type_ids = None
        pad_token_id, start = int(self.config["pad_token_id"] or 0), 0
        parts = []
        for group in packed.groups:
            samples, length = group.mask.shape
            inputs = {
                "input_ids": input_ids[start : start + samples, :length].masked_fill(
                    ~group.mask, pad_token_id
                ),
                "attention_mask": group.mask.long(),
            }
            if token_type_ids is not None:
                inputs["token_type_ids"] = token_type_ids[start : start + samples, :length]
            states = self.model(**inputs).last_hidden_state
            parts.append(nn.functional.pad(states, (0, 0, 0, input_ids.shape[1] - length)))
            start += samples
        return torch.cat(parts)

    def _encode_waveforms(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One sample at a time: some speech models normalize over time, where padding would count."""
        parts = [self._encode_waveform(x[i, mask[i], 0].float()) for i in range(len(x))]
        max_length = max([len(part) for part in parts] + [1])
        states = torch.stack([nn.functional.pad(part, (0, 0, 0, max_length - len(part))) for part in parts])
        lengths = torch.tensor([len(part) for part in parts], device=x.device)
        return states, torch.arange(max_length, device=x.device) < lengths[:, None]

    def _encode_waveform(self, waveform: Tensor) -> Tensor:
        """Audio samples (T,) → hidden states (T', D); T' is 0 if the waveform is too short."""
        if len(waveform) < self.input_length(1):
            return waveform.new_zeros(0, self.width)
        if self.sound.get("do_normalize", True):
            waveform = (waveform - waveform.mean()) / (waveform.var(unbiased=False) + 1e-7).sqrt()
        states: Tensor = self.model(waveform[None]).last_hidden_state[0].float()
        return states

    @contextmanager
    def _grad_mode(self) -> Iterator[None]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            yield

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        precision = self.choice.precision
        in_training = self.training or (self.frozen and torch.is_grad_enabled())
        bf16 = in_training and (precision == "bf16" or (precision == "auto" and has_bf16(device)))
        outer = torch.is_autocast_enabled(device.type)
        return torch.autocast(device.type, torch.bfloat16, enabled=bf16 or outer)

    def _depths(self) -> Iterable[tuple[nn.Parameter, int]]:
        """Every parameter and the number of Transformer layers above it."""
        layers = find_layers(self.model, self.config["num_hidden_layers"])
        depths = {id(p): len(layers) - 1 - i for i, layer in enumerate(layers) for p in layer.parameters()}
        other = len(layers)  # of the embeddings, which come before the layers; 0 for what comes after them
        for parameter in self.model.parameters():
            if id(parameter) in depths:
                yield parameter, depths[id(parameter)]
                other = 0
            else:
                yield parameter, other

    def _freeze_lower_layers(self) -> None:
        train_layers = self.choice.train_layers
        if train_layers is None:
            return
        layers = find_layers(self.model, self.config["num_hidden_layers"])
        if train_layers > len(layers):
            raise DataError(
                f"{self.folder}: train_layers is {train_layers}, but the model has {len(layers)} layers"
            )
        for parameter, depth in self._depths():
            parameter.requires_grad_(depth < train_layers)


@cache
def has_bf16(device: torch.device) -> bool:
    """Whether a device has native bfloat16 matrix products."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # older versions of PyTorch
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
