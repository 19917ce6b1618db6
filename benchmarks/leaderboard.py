"""Both leaderboards on one page: writes results/leaderboard.md from finished comparisons.

    carat data synth BUILT_IN
    carat data build recipes/mosei_reduced.yaml MOSEI
    carat compare --data BUILT_IN --out DIR1 --methods all --seeds 2
    carat compare --data MOSEI --out DIR2 --preset paper --seeds 3 \\
        --settings benchmarks/mosei_leaderboard.yaml
    python -m benchmarks.leaderboard DIR1 DIR2

Remarks come from results/leaderboard_remarks.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"


def join(pages: list[str], remarks: str) -> str:
    """Pages below one another, their headings one level lower, then the remarks."""
    lowered = ["\n".join(f"#{x}" if x.startswith("#") else x for x in page.splitlines()) for page in pages]
    return "\n\n".join(["# Leaderboards", *(page.strip() for page in [*lowered, remarks])]) + "\n"


def main() -> None:
    """Read finished comparisons, write the page."""
    folders = [Path(argument) for argument in sys.argv[1:]]
    if not folders:
        sys.exit(__doc__)
    pages = [(folder / "leaderboard.md").read_text(encoding="utf-8") for folder in folders]
    remarks = (RESULTS / "leaderboard_remarks.md").read_text(encoding="utf-8")
    (RESULTS / "leaderboard.md").write_text(join(pages, remarks), encoding="utf-8")
    print(RESULTS / "leaderboard.md")


if __name__ == "__main__":
    main()
