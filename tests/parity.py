"""Replay a file of golden numbers of the authors' released code with preset `official`.

`python -m tests.parity FIXTURE.safetensors` prints one JSON line with the largest relative error of each kind
of number, and `ok`. Sizes are read from the file; errors are relative to the stored tensor's largest entry.
Attention key biases are left out of gradients and weights: their gradient is zero but for rounding.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from carat.config.experiment import load_experiment
from carat.models.carat.model import Carat
from carat.runs.official_weights import (
    MODALITIES,
    QUEUE_CLASSES,
    QUEUE_POINTER,
    load_released,
    queue_classes,
    read_sizes,
    weight_mappings,
)
from carat.training.optimizer import clip_gradients, make_optimizer

SCHEDULED_STEPS = 20
LEARNING_RATE = 5e-4
TERMS = {
    "total": "total",
    "supcon": "contrast",
    "bce_aggregate": "aggregate",
    "bce_shuffled": "shuffled",
    "bce_original": "original",
    "bce_alpha": "alpha",
    "bce_beta": "beta",
    "mse_alpha": "mse_alpha",
    "mse_beta": "mse_beta",
    "mse_reconstruction": "mse_reconstruction",
}
LIMITS = {"eval_scores": 5e-6, "train_scores": 5e-6, "grads": 5e-5, "grad_norms": 5e-5}
LIMITS |= {"buffers_after": 1e-5, "weights_after": 5e-5} | dict.fromkeys(TERMS, 5e-6)


class Golden:
    """A file of golden numbers, opened."""

    def __init__(self, file: Path, dtype: torch.dtype) -> None:
        self.numbers = {k: x.to(dtype) if x.is_floating_point() else x for k, x in load_file(file).items()}
        with safe_open(file, "pt") as opened:
            self.metadata: dict[str, str] = opened.metadata()

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Entries whose names start so, without the prefix."""
        return {k.removeprefix(prefix): x for k, x in self.numbers.items() if k.startswith(prefix)}

    def method(self) -> Carat:
        """A model of the stored sizes, with the stored state."""
        state = self.below("state/")
        labels = tuple(f"label {i}" for i in range(int(self.metadata["num_classes"])))
        changes, widths = read_sizes(state, self.metadata["aligned"] == "True")
        dims, layers = (json.loads(self.metadata[key]) for key in ("dims", "layers"))
        assert list(widths.values()) == dims
        assert list(changes["encoder"]["layers"].values()) == layers
        assert changes["contrast"]["queue"] == int(self.metadata["queue"])
        changes["encoder"]["dropout"] = 0.0
        config = load_experiment(preset="official", overrides={"method": changes}).method
        method = Carat(widths, labels, config).to(state["queue"].dtype)
        assert load_released(method, state) == []
        return method


class Errors:
    """The largest relative error of each kind so far."""

    def __init__(self) -> None:
        self.largest = dict.fromkeys(LIMITS, 0.0)
        self.compared = dict.fromkeys(LIMITS, 0)

    def compare(self, kind: str, found: Tensor, expected: Tensor) -> None:
        """Shapes must agree, but for a loss stored as (1,)."""
        found = found.detach().double().reshape(expected.shape)
        error = (found - expected.double()).abs().max().item()
        scale = expected.abs().max().item()
        relative = error / scale if scale else float(error > 0)
        self.largest[kind] = max(self.largest[kind], relative if relative == relative else float("inf"))
        self.compared[kind] += 1

    def verdict(self) -> dict[str, Any]:
        """The errors, and whether every kind was compared and is within its limit."""
        ok = all(self.compared[kind] and self.largest[kind] <= limit for kind, limit in LIMITS.items())
        return self.largest | {"ok": ok}


def replay(file: Path, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Every step of a file: inference, then a training step, compared with what is stored."""
    golden = Golden(file, dtype)
    method = golden.method()
    training = load_experiment(preset="official", overrides={"training": {"learning_rate": LEARNING_RATE}})
    config = training.training
    optimizer, schedule = make_optimizer(method, config, SCHEDULED_STEPS)
    errors = Errors()
    for step in range(int(golden.metadata["steps"])):
        stored = golden.below(f"step{step}/")
        features = {m: stored[f"in/{m}"] for m in MODALITIES}
        masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in features.items()}
        labels = stored["in/labels"]
        with torch.no_grad():
            errors.compare("eval_scores", method.eval()(features, masks).scores, stored["eval/scores"])
        outputs = method.train()(features, masks)
        errors.compare("train_scores", outputs.scores, stored["train/scores"])
        index = (stored["shuffle/sample_index"], stored["shuffle/modality_index"])
        losses = method.losses_of_shuffle(outputs, labels, *index)
        for theirs, ours in TERMS.items():
            errors.compare(theirs, losses[ours], stored[f"loss/{theirs}"])
        optimizer.zero_grad()
        losses["total"].backward()
        gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        for name, gradient in released_names(method, gradients):
            if f"grad/{name}" in stored:
                errors.compare("grads", gradient, stored[f"grad/{name}"])
            if f"grad_norm/{name}" in stored:
                errors.compare("grad_norms", gradient.norm(), stored[f"grad_norm/{name}"])
        clip_gradients(method.parameters(), config.clip, config.clip_tensors)
        optimizer.step()
        schedule.step()
        method.update_after_step(outputs, labels)
        compare_buffers(errors, method, golden.below(f"step{step}/after/"))
        for name, weight in released_names(method, method.state_dict()):
            if f"after_norm/{name}" in stored:
                errors.compare("weights_after", weight.norm(), stored[f"after_norm/{name}"])
    return errors.verdict()


def released_names(method: Carat, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors by the released code's names, attention key biases left out."""
    for mapping in weight_mappings(method):
        if mapping.own in tensors and not mapping.released.endswith("attention.self.key.bias"):
            yield mapping.released, mapping.view(tensors)


def compare_buffers(errors: Errors, method: Carat, stored: dict[str, Tensor]) -> None:
    """Prototypes, queue, its classes (of noise only that it names none) and pointer."""
    if not stored:
        return
    state = method.state_dict()
    for name, buffer in released_names(method, state):
        if name in stored:
            errors.compare("buffers_after", buffer, stored.pop(name))
    expected = queue_classes(stored.pop(QUEUE_CLASSES), method)
    errors.compare("buffers_after", state["memory_bank.classes"], expected)
    errors.compare("buffers_after", state["memory_bank.pointer"], stored.pop(QUEUE_POINTER))
    assert not stored, f"not compared: {sorted(stored)}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.parity FIXTURE.safetensors")
    print(json.dumps(replay(Path(sys.argv[1]))))
