"""Conversion of released weights: sizes, values, and refused files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from carat.config.experiment import load_experiment
from carat.inference.loading import load
from carat.models.carat.model import Carat
from carat.runs.official_weights import (
    MODALITIES,
    SETTINGS,
    convert,
    load_released,
    read_sizes,
    read_state,
    weight_mappings,
)
from carat.utils.errors import CaratError

WIDTHS = {"text": 11, "visual": 5, "audio": 7}


def released(aligned: bool = True, layers: tuple[int, ...] = (2, 1, 3), labels: int = 6) -> dict[str, Tensor]:
    """A small random state dictionary with the released code's names."""
    torch.manual_seed(1)
    changes = {
        "hidden": 16,
        "latent": 6,
        "encoder": {
            "layers": dict(zip(MODALITIES, layers, strict=True)),
            "max_lengths": {"text": 13, "visual": 17, "audio": 19},
            "feedforward": 10,
        },
        "alignment": {} if aligned else {"modalities": ["visual", "audio"], "steps": 12},
        "contrast": {"queue": 23},
    }
    config = load_experiment(preset="official", overrides={"method": changes}).method
    method = Carat(WIDTHS, "abcdefg"[:labels], config)
    own = {name: torch.randn(x.shape) for name, x in method.state_dict().items()}
    state = {x.released: x.view(own).contiguous() for x in weight_mappings(method)}
    classes = torch.cat((torch.arange(9.0), torch.randn(14)))[:, None]
    return state | {"queue_label": classes, "queue_ptr": torch.tensor([9])}


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("labels", [6, 7])
def test_sizes_are_inferred_from_the_state_dictionary(aligned: bool, labels: int) -> None:
    state = released(aligned, labels=labels)
    changes, widths = read_sizes(state, aligned)
    assert widths == WIDTHS
    assert changes["encoder"]["layers"] == {"text": 2, "visual": 1, "audio": 3}
    config = load_experiment(preset="official", overrides={"method": changes}).method
    method = Carat(widths, "abcdefg"[:labels], config)
    assert load_released(method, state) == []
    own = method.state_dict()
    for mapping in weight_mappings(method):
        assert torch.equal(mapping.view(own), state[mapping.released]), mapping.released
    assert method.memory_bank.classes.tolist() == [*range(9), *[-2] * 14]
    assert method.memory_bank.pointer == 9
    queries = method.network.encoder["audio"].layers[2].query_key_value.weight[16:32]
    assert torch.equal(queries, state["audio.encoder.layer.2.attention.self.key.weight"])


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
def test_converted_run_predicts_the_same_scores(tmp_path: Path, suffix: str) -> None:
    state = released()
    file = tmp_path / f"official{suffix}"
    if suffix == ".safetensors":
        save_file({f"state/{k}": x for k, x in state.items()} | {"step0/loss": torch.ones(1)}, file)
    else:
        torch.save({f"module.{k}": x for k, x in state.items()}, file)
    card = convert(file, "mosei-aligned", tmp_path / "run")
    assert card.thresholds == dict.fromkeys(SETTINGS["mosei-aligned"].labels, 0.25)
    assert "ignored weights: audio.pooler.dense.bias" in card.notes[1]
    assert {m: x.pad_to for m, x in card.modalities.items()} == {"text": 13, "visual": 17, "audio": 19}
    predictor = load(tmp_path / "run")
    sample = {m: torch.randn(4, width).numpy() for m, width in WIDTHS.items()}
    prediction = predictor.predict(sample)
    features = {
        m: torch.nn.functional.pad(torch.tensor(x)[None], (0, 0, 0, card.modalities[m].pad_to - 4))
        for m, x in sample.items()
    }
    masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in features.items()}
    with torch.no_grad():
        expected = predictor.model(features, masks).scores[0]
    assert list(prediction.scores.values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_missing_unknown_and_transposed_keys_are_refused_by_name(tmp_path: Path) -> None:
    state = released(aligned=False)
    changes, widths = read_sizes(state, aligned=False)
    config = load_experiment(preset="official", overrides={"method": changes}).method
    method = Carat(widths, "abcdef", config)
    for key, value in state.items():
        with pytest.raises(CaratError, match=f"'{key}' is missing"):
            load_released(method, {k: x for k, x in state.items() if k != key})
        if value.ndim == 2:
            with pytest.raises(CaratError, match=f"'{key}' (has shape|is not contiguous)"):
                load_released(method, state | {key: value.T})
    with pytest.raises(CaratError, match=r"unknown key 'text\.head\.weight'"):
        load_released(method, state | {"text.head.weight": torch.ones(3)})


W, BIAS, PART = "va2t.output.weight", "va2t.output.bias", "visual.encoder.layer.1.output.dense.bias"
LSTM = "v2t_ctc.pred_output_position_inclu_blank.bias_ih_l0"


@pytest.mark.parametrize(
    ("layout", "key", "value", "message"),
    [
        ("mosei-aligned", "agg.output.bias", None, r"'agg.output.bias' is missing"),
        ("mosei-aligned", "text_norm.norm2d.weight", None, r"'text_norm.norm2d.weight' is missing"),
        ("mosei-aligned", "audio.pooler.dense.bias", None, r"'audio.pooler.dense.bias' is missing"),
        ("mosei-aligned", "queue_ptr", None, r"'queue_ptr' is missing"),
        ("mosei-aligned", PART, torch.ones(16), r"'visual.encoder.layer.1"),
        ("mosei-aligned", "more", torch.ones(1), r"unknown key 'more'"),
        ("mosei-aligned", W, torch.ones(48, 16), r"has shape \(48, 16\), expected \(16, 48\)"),
        ("mosei-aligned", BIAS, torch.full((16,), torch.nan), r"'va2t.output.bias' contains inf or NaN"),
        ("mosei-unaligned", "more", None, f"'{LSTM}' is missing"),
        ("m3ed", "more", None, r"has shape \(16, 96\), expected \(16, 112\)"),
    ],
)  # fmt: skip
def test_mismatching_state_dictionaries_are_refused(
    tmp_path: Path, layout: Any, key: str, value: Tensor | None, message: str
) -> None:
    state = released() | {key: value}
    torch.save({k: x for k, x in state.items() if x is not None}, tmp_path / "official.bin")
    with pytest.raises(CaratError, match=rf"official\.bin, trained on {layout}: .*{message}"):
        convert(tmp_path / "official.bin", layout, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Evil:
    def __reduce__(self) -> Any:
        return print, ("executed",)


def test_files_without_a_state_dictionary_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    (tmp_path / "text.bin").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    os.mkfifo(tmp_path / "pipe.pt")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.bin").symlink_to("/dev/zero")
    for name, message in [
        ("pipe.pt", "is a named pipe, expected a file"),
        ("pipe.safetensors", "is a named pipe, expected a file"),
        ("zero.bin", "is a device, expected a file"),
        ("evil.pt", r"weights cannot be loaded safely \(it references '[a-z.]*print'\)"),
        ("list.pt", "expected a state dictionary, found list"),
        ("epoch.pt", "'epoch' is int, expected a tensor"),
        ("text.bin", r"weights cannot be loaded safely \(no state dictionary\)"),
        ("text.safetensors", "weights cannot be loaded safely"),
        ("absent.pt", "no such file"),
    ]:
        with pytest.raises(CaratError, match=rf"{name}: {message}") as refused:
            read_state(tmp_path / name)
        assert "\n" not in str(refused.value)
    assert "executed" not in capsys.readouterr().out


def test_command(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    torch.save(released(aligned=False), tmp_path / "official.pt")
    code, _, err = run(
        "convert", tmp_path / "official.pt", "--trained-on", "mosei-unaligned", tmp_path / "converted"
    )
    assert code == 0, err
    assert "is now" not in err
    assert "ignored weights: audio.pooler" in err
    assert load(tmp_path / "converted").labels == list(SETTINGS["mosei-unaligned"].labels)
    code, _, err = run("convert", tmp_path / "official.pt", "--trained-on", "m3ed", tmp_path / "converted")
    assert code == 2
    assert "holds a run already" in err


@pytest.mark.parametrize("option", [["--layout", "mosei-unaligned"], ["--layout=mosei-unaligned"]])
def test_renamed_option_works_with_a_warning(run, tmp_path: Path, option: list[str]) -> None:  # type: ignore[no-untyped-def]
    torch.save(released(aligned=False), tmp_path / "official.pt")
    code, _, err = run("convert", tmp_path / "official.pt", *option, tmp_path / "converted")
    assert code == 0, err
    notice = "note: --layout is now --trained-on; the earlier name works until the next release"
    assert err.splitlines().count(notice) == 1
    assert load(tmp_path / "converted").labels == list(SETTINGS["mosei-unaligned"].labels)
