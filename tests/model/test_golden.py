"""The same weights give the same numbers as the authors' released code, where the presets do not differ.

Quirks of the released code that change numbers (queue rows as anchors, non-bijective shuffle) are not
compared here.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from carat.config import CaratConfig
from carat.methods import CaratMethod, Geometry

MODALITIES = ("text", "visual", "audio")
LAYER = {
    "attended": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "output_norm": "output.LayerNorm",
}
TERMS = {
    "original": "bce_original",
    "alpha": "bce_alpha",
    "beta": "bce_beta",
    "aggregate": "bce_aggregate",
    "mse_reconstruction": "mse_reconstruction",
    "mse_alpha": "mse_alpha",
    "mse_beta": "mse_beta",
}


def translate(state: dict[str, Tensor], method: CaratMethod) -> dict[str, Tensor]:
    """Our names for the released code's weights."""
    out = method.state_dict()

    def copy(ours: str, theirs: str) -> None:
        for kind in ("weight", "bias"):
            out[f"model.{ours}.{kind}"] = state[f"{theirs}.{kind}"]

    def stacked(ours: str, name: str, transpose: bool) -> None:
        for kind in ("weight", "bias"):
            parts = [state[f"{name.format(m)}.{kind}"] for m in MODALITIES]
            turn = transpose and kind == "weight"
            out[f"model.{ours}.{kind}"] = torch.stack([p.T if turn else p for p in parts])

    for m in MODALITIES:
        copy(f"input_norm.{m}", f"{m}_norm.norm2d")
        copy(f"encoder.{m}.project", f"{m}.embeddings.word_embeddings")
        copy(f"encoder.{m}.norm", f"{m}.embeddings.LayerNorm")
        positions = state[f"{m}.embeddings.position_embeddings.weight"]
        out[f"model.encoder.{m}.positions"][: len(positions)] = positions
        theirs, ours = f"{m}.encoder.layer.0", f"encoder.{m}.layers.0"
        for kind in ("weight", "bias"):
            parts = [state[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            out[f"model.{ours}.query_key_value.{kind}"] = torch.cat(parts)
        for own, their in LAYER.items():
            copy(f"{ours}.{own}", f"{theirs}.{their}")
        out[f"model.label_attention.{m}.score.weight"] = state[f"{m}_attention.attention.weight"]
        for name in [n for n in out if n.startswith(f"model.alignment.{m}.lstm.")]:
            lstm = f"{m[0]}2t_ctc.pred_output_position_inclu_blank"
            out[name] = state[f"{lstm}.{name.rpartition('.')[2]}"]
    for part, their in (("encoder", "proj"), ("decoder", "de_proj")):
        stacked(f"latent.{part}.first", their + "_{}.linear.0", transpose=True)
        stacked(f"latent.{part}.second", their + "_{}.output", transpose=True)
    rebuild = {"text": "va2t", "visual": "ta2v", "audio": "tv2a"}
    for kind in ("weight", "bias"):
        parts = [state[f"{rebuild[m]}.output.{kind}"] for m in MODALITIES]
        out[f"model.reconstruction.rebuild.{kind}"] = torch.stack([p.T if p.ndim == 2 else p for p in parts])
    out["model.classifier"] = torch.stack([state[f"{m}_clf_weight"] for m in MODALITIES])
    out["model.prototypes.means"] = prototypes(state)
    copy("aggregation.first", "agg.linear.0")
    copy("aggregation.second", "agg.output")
    return out


def prototypes(values: dict[str, Tensor]) -> Tensor:
    """(M, L, 2, P)."""
    pairs = [[values[f"{m}_{sign}_protos"] for sign in ("pos", "neg")] for m in MODALITIES]
    return torch.stack([torch.stack(pair, dim=1) for pair in pairs])


@pytest.mark.parametrize("name", ["mosei_aligned", "mosei_unaligned"])
def test_golden_numbers(shared: Path, name: str) -> None:
    file = shared / "golden" / f"{name}.safetensors"
    golden = {key: x.float() if x.is_floating_point() else x for key, x in load_file(file).items()}
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    widths = dict(zip(MODALITIES, json.loads(metadata["dims"]), strict=True))
    config = CaratConfig.model_validate(
        {
            "encoder": {"layers": dict.fromkeys(MODALITIES, 1), "dropout": 0.0, "norm_eps": 1e-12},
            "alignment": {"modalities": [] if metadata["aligned"] == "True" else ["visual", "audio"]},
            "contrast": {"queue": int(metadata["queue"])},
        }
    )
    method = CaratMethod(config, Geometry(tuple("abcdef"), widths))
    state = {key.removeprefix("state/"): x for key, x in golden.items() if key.startswith("state/")}
    method.load_state_dict(translate(state, method))
    features = {m: golden[f"step0/in/{m}"] for m in MODALITIES}
    masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in features.items()}
    labels = golden["step0/in/labels"]

    with torch.no_grad():
        scores = method.eval()(features, masks).scores
        torch.testing.assert_close(scores, golden["step0/eval/scores"], atol=1e-6, rtol=1e-6)
        outputs = method.train()(features, masks)
        torch.testing.assert_close(outputs.scores, golden["step0/train/scores"], atol=1e-6, rtol=1e-6)
        losses = method.losses(outputs, labels)
    for ours, theirs in TERMS.items():
        torch.testing.assert_close(
            losses[ours], golden[f"step0/loss/{theirs}"].squeeze(), atol=1e-6, rtol=1e-6, msg=ours
        )
    method.update_after_step(outputs, labels)
    after = {key.removeprefix("step0/after/"): x for key, x in golden.items() if "step0/after/" in key}
    torch.testing.assert_close(method.model.prototypes.means, prototypes(after), atol=1e-6, rtol=1e-6)
    written = len(labels) * 3 * 3 * 6
    torch.testing.assert_close(method.queue.rows[:written], after["queue"][:written], atol=1e-6, rtol=1e-5)
    assert torch.equal(method.queue.classes[:written], after["queue_label"][:written, 0].long())
    assert method.queue.pointer.item() == after["queue_ptr"].item()
