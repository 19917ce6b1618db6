"""Loading of pretrained models from checked local folders."""

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
from carat.models.encoders.cpu import make_fast
from carat.utils.errors import ConfigError, DataError
from carat.utils.hugging_face import WEIGHTS, check_folder, read_config

PREFIXES = ("bert.", "roberta.")
"""Of the encoder's weights in files that hold a head too."""


def load_model(folder: Path, choice: EncoderChoice, *, text: bool, weights: bool) -> Any:
    """The model of a folder, without its pooler: `Bert` where that can be, otherwise transformers' own.

    Args:
        folder: see `check_folder`.
        choice: whether there are adapters, which are then all that is trainable, and how memory is saved.
        text: whether it reads text, and so has a tokenizer.
        weights: whether to read them; otherwise they are to be loaded from a run.

    Raises:
        DataError: the folder is refused, or its weights are not those of its configuration.
        ConfigError: an extra is missing.
    """
    check_folder(folder, tokenizer=text, weights=weights)
    config = read_config(folder)
    try:
        if text and is_bert(config) and choice.lora is None and not choice.gradient_checkpointing:
            model: Any = Bert(config)
            if weights:
                _load_weights(model, load_file(folder / WEIGHTS))
            return model
        model = _transformers_model(folder, weights)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its output would be read by nothing
    if choice.lora is not None:
        _add_adapters(model, choice)
    if choice.gradient_checkpointing:
        _compute_again(model)
    make_fast(model)
    return model


def _load_weights(model: Bert, found: dict[str, Tensor]) -> None:
    named = {}
    for name, value in found.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        named[name] = value
    own = model.state_dict()
    for name, value in own.items():
        if name not in named or named[name].shape != value.shape:
            raise ValueError(f"the weights lack '{name}', or have it of another shape")
    model.load_state_dict({name: named[name].float() for name in own})


def _transformers_model(folder: Path, weights: bool) -> Any:
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
        config.apply_spec_augment = False  # draws from numpy's generator
        if not weights:
            return AutoModel.from_config(config, dtype=torch.float32)
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
    return model


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


def _compute_again(model: Any) -> None:
    """Keep no hidden states for the backward pass."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:  # an earlier transformers
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def layers_of(model: nn.Module, number: int) -> nn.ModuleList:
    """The stack of a model's so many Transformer layers.

    Raises:
        DataError: it has none that is recognized.
    """
    for part in model.modules():
        if isinstance(part, nn.ModuleList) and len(part) == number:
            return part
    raise DataError(f"no stack of {number} layers is found in the model")
