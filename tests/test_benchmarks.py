"""The speed benchmarks measure what they say; how fast anything is, is not tested here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks import contrast, device, scaling, step, text
from benchmarks.measure import alternate, finish, in_own_process, table
from benchmarks.performance import PARTS, page
from benchmarks.roofline import needed
from benchmarks.workload import BareEncoders, make_batch, make_method, mosei_lengths, training_step

from carat.data.store import Store
from tests.models.encoders.conftest import text_encoder, text_store

__all__ = ["text_encoder", "text_store"]  # fixtures


def test_lengths_have_the_mean_of_mosei() -> None:
    lengths = mosei_lengths(4096)
    assert lengths.double().mean().item() == pytest.approx(20, abs=0.2)
    assert lengths.min() >= 1
    assert lengths.max() == 60
    assert mosei_lengths(64).double().mean().item() == pytest.approx(20, abs=0.5)


def test_yardstick_has_the_layers_of_the_method() -> None:
    method = make_method(encoder={"layers": {"text": 1, "visual": 1, "audio": 1}})
    bare = BareEncoders({"text": 1, "visual": 1, "audio": 1}, 256, 8, 256, 0.3)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (bare.layers, bare.project)]
    encoders = [method.get_submodule(f"network.encoder.{m}") for m in ("text", "visual", "audio")]
    assert sizes[0] == sum(p.numel() for e in encoders for p in e.get_submodule("layers").parameters())
    assert sizes[1] == sum(p.numel() for e in encoders for p in e.get_submodule("project").parameters())


def test_versions_of_the_contrast_agree() -> None:
    given = contrast.rows(37, 41)
    found = [contrast.gradient(version, given) for version in ("plain", "tiled")]
    torch.testing.assert_close(*found)
    assert found[0].any()


def test_a_step_trains_and_fills_the_queue() -> None:
    changes = {"hidden": 16, "latent": 4, "contrast": {"queue": 101}, "encoder": {"heads": 2}}
    method = make_method(labels=3, **changes)
    before = method.get_parameter("network.classifier").clone()
    call = training_step(method, make_batch(5, 7, 3))
    call()
    call()
    assert (method.get_parameter("network.classifier") != before).any()
    assert method.get_buffer("memory_bank.pointer") == 2 * 5 * 3 * 3 * 3 % 101
    flops, moved = needed(call)
    assert flops > 1e6
    assert moved > 1e5


def test_exponents_of_known_growth() -> None:
    assert scaling.exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2)
    assert scaling.exponent([1, 2, 4], [5.0, 5.0, 5.0]) == pytest.approx(0)


def test_every_step_is_timed_by_its_name() -> None:
    assert list(step.steps("cpu", only="paper_lengths")) == ["paper_lengths"]


def test_turns_are_taken() -> None:
    called: list[str] = []
    alternate({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2, warmup=1)
    assert called == list("ababab")


def test_page_and_printing(capsys: pytest.CaptureFixture[str]) -> None:
    finish(table(["name", "s"], [["x", 0.5], ["longer", ""]]), {"ratio": 0.123456})
    *text, line = capsys.readouterr().out.strip().splitlines()
    assert text[0] == "| name   | s     |"
    assert text[2] == "| x      | 0.500 |"
    found = json.loads(line)
    assert found["ratio"] == 0.1235
    written = page(dict.fromkeys(PARTS, "TABLE"), {part: json.loads(line) for part in PARTS})
    assert written.count("TABLE") == len(PARTS)
    assert str(found["machine"]["commit"]) in written


def test_a_benchmark_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"benchmarks.step --rounds none ended with"):
        in_own_process("benchmarks.step", "--rounds", "none")


@pytest.mark.parametrize("name", ["plain", "plain_fast", "carat_text"])
def test_fine_tuning_learns(name: str, text_encoder: Path, text_store: Store) -> None:
    step = text.steps(text_encoder, [text_store])[name]()
    found = [step() for _ in range(60)]
    assert sum(found[-10:]) < sum(found[:10])


def test_without_a_gpu_that_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="finds no GPU"):
        device.main()
