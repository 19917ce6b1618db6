"""Load pretrained models from local Hugging Face folders."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from carat.config.encoders import EncoderChoice
from carat.models.encoders.bert import Bert, is_bert
from carat.models.encoders.cpu import use_cpu_kernels
from carat.models.encoders.mpnet import Mpnet, is_mpnet
from carat.models.sizes import check_memory, measure
from carat.utils.errors import CaratError, ConfigError, DataError
from carat.utils.hugging_face import CONFIG, WEIGHTS, check_folder, read_config
from carat.utils.memory import describe_bytes

EXPECTED = (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError)
"""Exceptions of transformers whose message is understood without their type."""
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Arguments of transformers: nothing is downloaded or executed."""
MAX_WITHOUT_WEIGHTS = 1 << 26
"""Parameters that a folder may lack, such as those of a pooler."""
BASE, LORA_A, LORA_B = ".base_layer", ".lora_A", ".lora_B"
"""Parts of the names of weights with LoRA adapters: the original weights, and both factors of an adapter."""
PREFIXES = ("bert.", "roberta.", "mpnet.")
"""Prefixes of encoder weights in checkpoints that include a head."""


def load_model(folder: Path, choice: EncoderChoice, *, text: bool, weights: bool) -> Any:
    """Load a model without its pooler, as `Bert` or `Mpnet` where possible, or as transformers' own class.

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
    own = _own_class(config) if text and choice.lora is None else None
    try:
        construct = partial(own, config) if own is not None else _transformers_constructor(folder)
        _check_size(construct, folder / WEIGHTS if weights else None)
        if own is not None:
            model: Any = construct()
            model.checkpoints = choice.gradient_checkpointing
            if weights:
                _load_weights(model, read_published(folder))
            return model
        model = _load_transformers_model(folder) if weights else construct()
    except CaratError:
        raise
    except Exception as error:  # a configuration may make a constructor raise anything
        reason = (str(error).splitlines() or [""])[0]
        name = "" if isinstance(error, EXPECTED) else f"{type(error).__name__}: "
        raise DataError(f"{folder}: cannot be loaded ({name}{reason})") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its output is unused
    if choice.lora is not None:
        _add_adapters(model, choice)
    if choice.gradient_checkpointing:
        _enable_gradient_checkpointing(model)
    use_cpu_kernels(model)
    return model


def _own_class(config: dict[str, Any]) -> type[Bert | Mpnet] | None:
    """carat's own implementation of an architecture, if there is one."""
    return Bert if is_bert(config) else Mpnet if is_mpnet(config) else None


def read_published(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a published encoder, float32, by the names that transformers' models have.

    Raises:
        OSError, SafetensorError: they cannot be read.
    """
    weights = {}
    for name, value in load_file(folder / WEIGHTS).items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        weights[name] = value.float() if value.is_floating_point() else value
    return weights


def _load_weights(model: Bert | Mpnet, weights: dict[str, Tensor]) -> None:
    """Copy weights of a checkpoint into a model; weights that the model does not have are ignored.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    state = model.state_dict()
    for name, value in state.items():
        if name not in weights or weights[name].shape != value.shape:
            raise ValueError(_mismatch(name))
    model.load_state_dict({name: weights[name] for name in state})


def _check_size(construct: Callable[[], nn.Module], weights: Path | None) -> None:
    """Check the size of a model before it is constructed.

    Args:
        construct: constructor of the model of the configuration, in float32.
        weights: file of its weights, which has at least one byte per parameter.

    Raises:
        ValueError: the weights are of a smaller model.
        ConfigError: there is not enough memory.
    """
    try:
        size = measure(construct)
    except CaratError:
        raise
    except Exception:  # a constructor that needs values; if it is invalid, it fails again
        return
    if weights is not None and size.parameters // 4 > MAX_WITHOUT_WEIGHTS + weights.stat().st_size:
        raise ValueError(
            f"{CONFIG} describes a model of {size.parameters // 4:,} parameters, but {WEIGHTS} has "
            f"{describe_bytes(weights.stat().st_size)}"
        )
    check_memory(size.in_use, "the encoder", "use a smaller one")


def _transformers_constructor(folder: Path) -> Callable[[], Any]:
    """Constructor of transformers' model of a folder, with random weights."""
    transformers = _import_transformers()
    with _without_warnings():
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
    config.apply_spec_augment = False  # draws from NumPy's global generator

    def construct() -> Any:
        with _without_warnings():
            return transformers.AutoModel.from_config(config, dtype=torch.float32)

    return construct


def _load_transformers_model(folder: Path) -> Any:
    """Read transformers' model of a folder.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    transformers = _import_transformers()
    with _without_warnings():
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
        config.apply_spec_augment = False  # draws from NumPy's global generator
        model, info = transformers.AutoModel.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **LOCAL,
        )
    missing = sorted(x for x in info["missing_keys"] if "pooler" not in x)
    if missing or info["mismatched_keys"]:
        raise ValueError(_mismatch(missing[0] if missing else sorted(info["mismatched_keys"])[0][0]))
    return model


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "a pretrained encoder needs the extra: pip install 'carat-emotion[text]'"
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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
