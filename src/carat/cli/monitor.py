"""`carat monitor`."""

from __future__ import annotations

from pathlib import Path

from carat.cli.app import AsJson, app


@app.command
def monitor(run: Path, /, *, data: Path, split: str | None = None, as_json: AsJson = False) -> None:
    """Compare new data with the training data of a run: inputs by modality, scores and rates by label.

    Labels of the new data are not needed; if it has them, their rates are shown too. 1 % of the validation
    samples are unusual by definition.

    **Examples**

        carat monitor demo-run --data demo-store --split test

        carat monitor demo-run --data demo-store --json

    Parameters
    ----------
    run
        Folder created by `carat train`.
    data
        Folder of a store with the new data.
    split
        Split of the store; defaults to all.
    """
    from carat.cli.tables import show_json
    from carat.inference.monitor import monitor as compare

    report = compare(run, data, split)
    if as_json:
        show_json(report.to_json())
        return
    for table in report.tables():
        table.show()
