"""Preset `official` gives the numbers of the authors' released code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.parity import LIMITS, replay

ROOT = Path(__file__).resolve().parents[1]
FILES = ["mosei_aligned", "mosei_unaligned"]


@pytest.mark.parametrize("name", FILES)
def test_golden_numbers(shared: Path, name: str) -> None:
    found = replay(shared / "golden" / f"{name}.safetensors")
    assert found.keys() == LIMITS.keys() | {"ok"}
    assert found["ok"], found


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("step1/loss/supcon", "supcon"),
        ("step3/after/queue", "buffers_after"),
        ("step3/after/queue_label", "buffers_after"),
        ("step3/after_norm/va2t.output.weight", "weights_after"),
        ("step0/grad/text_clf_weight", "grads"),
        ("step2/eval/scores", "eval_scores"),
    ],
)
def test_a_wrong_number_is_noticed(shared: Path, tmp_path: Path, key: str, kind: str) -> None:
    golden = shared / "golden" / "mosei_unaligned.safetensors"
    numbers = load_file(golden)
    numbers[key] = numbers[key].clone()
    numbers[key].view(-1)[0] += 1
    with safe_open(golden, "pt") as opened:
        save_file(numbers, tmp_path / "altered.safetensors", opened.metadata())
    found = replay(tmp_path / "altered.safetensors")
    assert not found["ok"]
    assert found[kind] > LIMITS[kind]


def test_command_prints_one_json_line(shared: Path) -> None:
    file = shared / "golden" / "mosei_unaligned.safetensors"
    done = subprocess.run(
        [sys.executable, "-m", "tests.parity", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["ok"] is True
