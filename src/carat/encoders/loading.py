"""A pretrained model from its folder: checked, with or without its weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from carat.encoder_configs import LoraConfig
from carat.encoders.fast import make_fast
from carat.errors import ConfigError, DataError
from carat.hugging_face import check_folder


def load_model(folder: Path, *, text: bool, weights: bool, lora: LoraConfig | None) -> Any:
    """The model of a folder, without its pooler.

    Args:
        folder: see `check_folder`.
        text: whether it reads text, and so has a tokenizer.
        weights: whether to read them; otherwise they are to be loaded from a run.
        lora: adapters to add; only they are then trainable.

    Raises:
        DataError: the folder is refused, or its weights are not those of its configuration.
        ConfigError: an extra is missing.
    """
    check_folder(folder, tokenizer=text, weights=weights)
    try:
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging
    except ImportError as error:
        raise ConfigError("a pretrained encoder needs the extra: pip install 'carat[text]'") from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = AutoConfig.from_pretrained(folder, **local)
            config.apply_spec_augment = False  # draws from numpy's generator
            if weights:
                model, found = AutoModel.from_pretrained(
                    folder,
                    config=config,
                    use_safetensors=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                    **local,
                )
                lacking = sorted(x for x in found["missing_keys"] if "pooler" not in x)
                if lacking or found["mismatched_keys"]:
                    wrong = lacking[0] if lacking else sorted(found["mismatched_keys"])[0][0]
                    raise ValueError(f"the weights lack '{wrong}', or have it of another shape")
            else:
                model = AutoModel.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its output would be read by nothing
    if lora is not None:
        _add_adapters(model, lora)
    make_fast(model)
    return model


def _add_adapters(model: nn.Module, lora: LoraConfig) -> None:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("lora needs the extra: pip install 'carat[lora]'") from error
    names = sorted({name for name, part in model.named_modules() if isinstance(part, nn.Linear)})
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=names
    )
    peft.inject_adapter_in_model(config, model)


def compute_again(model: Any) -> None:
    """Keep no hidden states for the backward pass."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:  # before transformers 5.2x
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def layers_of(model: Any) -> nn.ModuleList:
    """The stack of a model's Transformer layers.

    Raises:
        DataError: it has none that is recognised.
    """
    number = getattr(model.config, "num_hidden_layers", None)
    for part in model.modules():
        if isinstance(part, nn.ModuleList) and len(part) == number:
            return part
    raise DataError(f"model_type '{model.config.model_type}': no stack of {number} layers is found in it")
