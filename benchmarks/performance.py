"""Run all speed benchmarks, one after the other, and write results/performance.md.

python -m benchmarks.performance
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cyclopts

from benchmarks.measure import output_of

PARTS = {
    "step": "Training step",
    "inference": "Scoring",
    "contrast": "Contrast",
    "data": "Loading",
    "scaling": "Growth",
    "roofline": "Roofline",
}
"""Benchmarks by module, in the order of the page."""
ROOT = Path(__file__).parents[1]


def page(texts: dict[str, str], values: dict[str, dict[str, Any]]) -> str:
    """The whole page: machine, tables, remarks, and the JSON lines."""
    machines = [found.pop("machine") for found in values.values()]
    first = machines[0]
    commits = sorted({str(found["commit"]) for found in machines})
    device = first["gpu"] or "no GPU at hand, so nothing here was measured on one"
    sections = "\n\n".join(
        f"## {title}\n\n`python -m benchmarks.{part}`. {texts[part]}" for part, title in PARTS.items()
    )
    lines = "\n".join(json.dumps({"benchmark": part} | found) for part, found in values.items())
    remarks = (ROOT / "results" / "performance_remarks.md").read_text(encoding="utf-8")
    return f"""# Speed and memory

Made by `python -m benchmarks.performance`; do not edit: remarks stand in `results/performance_remarks.md`.

Commit {", ".join(commits)}; {first["processor"]}, {first["threads"]} threads, torch {first["torch"]};
{device}. Times are medians of rounds in which everything takes its turn, so that ratios within a table hold
although the machine is noisy; seconds of different tables do not compare. Random features and weights;
fixed seeds.

{sections}

{remarks}
## As JSON

```json
{lines}
```
"""


def main(*, out: Path = ROOT / "results" / "performance.md") -> None:
    """Run all of them and write the page; takes ten minutes on two cores.

    Parameters
    ----------
    out
        Page to write.
    """
    texts, values = {}, {}
    for part in PARTS:
        print(f"benchmarks.{part} …", flush=True)
        *text, line = output_of(f"benchmarks.{part}").strip().splitlines()
        texts[part], values[part] = "\n".join(text).strip(), json.loads(line)
    out.write_text(page(texts, values), encoding="utf-8")
    print(f"→ {out}")


if __name__ == "__main__":
    cyclopts.run(main)
