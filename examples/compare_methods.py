"""Compare methods on equal terms and read the leaderboard into a DataFrame.

    python examples/compare_methods.py [FOLDER]

Every method gets the same data, trials and seeds; thresholds and settings are chosen on validation, the
test split is only scored. The folder also gets leaderboard.md, .csv and .html. Needs pandas.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import carat


def main(folder: Path) -> None:
    """Run the example in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    carat.make_synthetic(folder / "store", samples=400)
    leaderboard = carat.compare(
        folder / "store",
        folder / "leaderboard",
        methods=["br", "linear"],  # ["all"] for all of them
        seeds=1,  # 3 or more for a result: the leaderboard then has standard deviations
        settings={"all": {"training": {"epochs": 2}}},
    )
    frame = leaderboard.to_frame().set_index("method")
    print(frame[["micro_f1", "micro_f1_low", "micro_f1_high", "macro_f1", "seconds_per_epoch"]].round(3))
    print("best on the test split:", frame["micro_f1"].idxmax())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="carat-")))
