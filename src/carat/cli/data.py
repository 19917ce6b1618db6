"""`carat data …`: make and inspect stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from carat.cli.app import AsJson, Overwrite, app, say

data = App(name="data", help="Make and inspect stores: checked data sets that training and evaluation read.")
app.command(data)

Verify = Annotated[bool, Parameter(help="Read every byte and compare it with the fingerprint.", negative=())]


@data.command
def synth(
    store: Path, /, *, samples: int = 3000, seed: int = 0, missing: float = 0.05, overwrite: Overwrite = False
) -> None:
    """Make the built-in benchmark: three modalities of unequal length, correlated labels, learnable.

    **Examples**

        carat data synth demo-store

        carat data synth big-store --samples 20000 --seed 7

    Parameters
    ----------
    store
        Folder to make.
    samples
        How many samples, 100 at least; 70 % train, 15 % valid, 15 % test.
    seed
        The same seed gives the same store.
    missing
        Share of modalities that samples lack.
    """
    from carat.data.synthetic import synthesise

    made = synthesise(store, samples=samples, seed=seed, missing=missing, overwrite=overwrite)
    say(f"{made!r} → {store}")


@data.command
def build(recipe: Path, store: Path, /, *, overwrite: Overwrite = False) -> None:
    """Turn your own table and features into a checked store, as a recipe says.

    **Examples**

        carat data build recipes/mosei_reduced.yaml mosei

        carat data build my-recipe.yaml my-store --overwrite

    Parameters
    ----------
    recipe
        YAML: table, id, split and label columns, and per modality where its features come from;
        docs/data.md describes every key.
    store
        Folder to make.
    """
    from carat.data.build import build_store

    made = build_store(recipe, store, overwrite=overwrite)
    say(f"{made!r} → {store}")


@data.command
def info(store: Path, /, *, verify: Verify = False, as_json: AsJson = False) -> None:
    """Show splits, labels, co-occurrence, lengths, missing modalities and fingerprint of a store.

    **Examples**

        carat data info demo-store

        carat data info demo-store --verify --json

    Parameters
    ----------
    store
        Folder of the store.
    """
    from carat.data.store import open_store
    from carat.data.summary import summarise
    from carat.display import show_summary

    opened = open_store(store)
    if verify:
        opened.verify()
    summary = summarise(opened) | ({"verified": True} if verify else {})
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        show_summary(summary)
