"""Load pretrained models from local Hugging Face folders."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from carat.config.encoders import EncoderChoice
from carat.models.encoders.bert import Bert, is_bert
from carat.models.encoders.cpu import use_cpu_kernels
from carat.utils.errors import ConfigError, DataError
from carat.utils.hugging_face import WEIGHTS, check_folder, read_config

PREFIXES = ("bert.", "roberta.")
"""Prefixes of encoder weights in checkpoints that include a head."""


def load_model(folder: Path, choice: EncoderChoice, *, text: bool, weights: bool) -> Any:
    """Load a model without its pooler, as `Bert` where possible and as transformers' own class otherwise.

    Args:
        folder: see `check_folder`.
        choice: whether to add LoRA adapters, which are then the only trainable parameters, and whether to
            use gradient checkpointing.
        text: whether this is a text model, which needs a tokenizer.
        weights: read the folder's weights; if False, the caller loads them from a run.

    Raises:
        DataError: the folder is invalid, or its weights do not match its configuration.
        ConfigError: an optional dependency is missing.
    """
    check_folder(folder, tokenizer=text, weights=weights)
    config = read_config(folder)
    try:
        if text and is_bert(config) and choice.lora is None and not choice.gradient_checkpointing:
            model: Any = Bert(config)
            if weights:
                _load_weights(model, load_file(folder / WEIGHTS))
            return model
        model = _load_transformers_model(folder, weights)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its output is unused
    if choice.lora is not None:
        _add_adapters(model, choice)
    if choice.gradient_checkpointing:
        _enable_gradient_checkpointing(model)
    use_cpu_kernels(model)
    return model


def _load_weights(model: Bert, published: dict[str, Tensor]) -> None:
    """Copy weights of a checkpoint into a model; weights that the model does not have are ignored.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    weights = {}
    for name, value in published.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        weights[name] = value
    state = model.state_dict()
    for name, value in state.items():
        if name not in weights or weights[name].shape != value.shape:
            raise ValueError(_mismatch(name))
    model.load_state_dict({name: weights[name].float() for name in state})


def _load_transformers_model(folder: Path, weights: bool) -> Any:
    try:
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging
    except ImportError as error:
        raise ConfigError(
            "a pretrained encoder needs the extra: pip install 'carat-emotion[text]'"
        ) from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AutoConfig.from_pretrained(folder, **local)
        config.apply_spec_augment = False  # draws from NumPy's global generator
        if not weights:
            return AutoModel.from_config(config, dtype=torch.float32)
        model, info = AutoModel.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **local,
        )
    missing = sorted(x for x in info["missing_keys"] if "pooler" not in x)
    if missing or info["mismatched_keys"]:
        raise ValueError(_mismatch(missing[0] if missing else sorted(info["mismatched_keys"])[0][0]))
    return model


def _mismatch(name: str) -> str:
    return f"weight '{name}' is missing, or its shape does not match the configuration"


def _add_adapters(model: nn.Module, choice: EncoderChoice) -> None:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("lora needs the extra: pip install 'carat-emotion[lora]'") from error
    assert choice.lora is not None
    names = sorted({name for name, part in model.named_modules() if isinstance(part, nn.Linear)})
    config = peft.LoraConfig(
        r=choice.lora.rank,
        lora_alpha=choice.lora.alpha,
        lora_dropout=choice.lora.dropout,
        target_modules=names,
    )
    peft.inject_adapter_in_model(config, model)


def _enable_gradient_checkpointing(model: Any) -> None:
    """Recompute hidden states in the backward pass instead of storing them."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:  # older versions of transformers
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def find_layers(model: nn.Module, num_layers: int) -> nn.ModuleList:
    """The stack of `num_layers` Transformer layers of a model.

    Raises:
        DataError: the model has no such stack.
    """
    for part in model.modules():
        if isinstance(part, nn.ModuleList) and len(part) == num_layers:
            return part
    raise DataError(f"the model has no stack of {num_layers} Transformer layers")
