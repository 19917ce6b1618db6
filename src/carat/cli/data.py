"""`carat data`: create, import and inspect stores."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from carat.cli.app import AsJson, Overwrite, Workers, app, cores
from carat.utils.errors import ConfigError, DataError
from carat.utils.logging import logger

data = App(
    name="data", help="Create, import and inspect stores: validated data sets for training and evaluation."
)
app.command(data)

FormatName = Literal["mosei-aligned", "mosei-unaligned", "mmsa", "mult", "csd", "m3ed", "erc", "mosei-labels"]
Flag = Annotated[bool, Parameter(negative=())]
Strict = Annotated[
    bool,
    Parameter(
        help="Refuse data in which no training sample has a modality, or a split has no positive sample of a "
        "label, instead of warning.",
        negative=(),
    ),
]
Verify = Annotated[bool, Parameter(help="Read every byte and compare it with the fingerprint.", negative=())]


@Parameter(name="*", group=Group("Labels and samples", sort_key=1))
@dataclass(frozen=True)
class CorpusOptions:
    """Source of the labels, and definition of a sample."""

    labels: Path | None = None
    """Table with video, segment or times, and six intensities; or the aligned file; csd: label sequence."""
    by_index: Flag = False
    """mosei-unaligned: pair with the aligned file by position; an error if the data contradicts it."""
    level: Literal["dialogue", "utterance"] = "dialogue"
    """m3ed and erc: unit of a sample."""
    as_released: Flag = False
    """m3ed: swap audio and visual as the published reader does."""
    parts: str | None = None
    """erc: positions of the parts of an unknown layout, such as text=3,audio=4,labels=2,train=7,test=8;
    several are averaged, text=2+3."""
    label_names: str | None = None
    """erc with parts, mult: names of the labels in the order of their numbers, such as sad,happy, or a set:
    mosei, mosei-by-name, m3ed, iemocap, iemocap-4, meld, emorynlp, dailydialog."""


@Parameter(name="*", group=Group("Computational sequences (csd)", sort_key=2))
@dataclass(frozen=True)
class SequenceFiles:
    """Files of the CMU-MultimodalSDK."""

    words: Path | None = None
    """Sequence of words."""
    text: Path | None = None
    """Sequence of word vectors."""
    visual: Path | None = None
    """Visual sequence."""
    audio: Path | None = None
    """Audio sequence."""
    folds: Path | None = None
    """Videos of the splits train, valid and test: JSON or a table."""
    unaligned: Flag = False
    """Keep visual and audio as they are, instead of one average per word."""


@Parameter(name="*", group=Group("Store", sort_key=3))
@dataclass(frozen=True)
class StoreOptions:
    """Storage of features."""

    keep_padding: Flag = False
    """Keep zeros before and after sequences."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the features on disk."""
    strict: Strict = False


@data.command
def synth(
    store: Path, /, *, samples: int = 3000, seed: int = 0, missing: float = 0.05, overwrite: Overwrite = False
) -> None:
    """Create the synthetic benchmark: three modalities of unequal length, and correlated labels.

    **Examples**

        carat data synth demo-store

        carat data synth big-store --samples 20000 --seed 7

    Parameters
    ----------
    store
        Folder to create.
    samples
        Number of samples, at least 100; 70 % train, 15 % valid, 15 % test.
    seed
        Random seed; the same seed gives the same store.
    missing
        Probability that a sample lacks a modality.
    """
    from carat.data.synthetic import make_synthetic

    created = make_synthetic(store, samples=samples, seed=seed, missing=missing, overwrite=overwrite)
    logger.info(f"{created!r} → {store}")


@data.command
def build(
    recipe: Path,
    store: Path,
    /,
    *,
    strict: Strict = False,
    workers: Workers = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    overwrite: Overwrite = False,
) -> None:
    """Build a store from your own table and features, as described by a recipe.

    **Examples**

        carat data build recipes/mosei_reduced.yaml mosei

        carat data build my-recipe.yaml my-store --overwrite

    Parameters
    ----------
    recipe
        YAML of the table, its id, split and label columns, and the source of each modality; see
        docs/reference/file_formats.md.
    store
        Folder to create.
    workers
        Number of media files from which features are extracted at a time; defaults to the number of cores.
    engine
        Processes of this machine, or Ray (pip install 'carat-emotion[ray]').
    address
        Address of a Ray cluster; by default one is started on this machine.
    """
    from carat.data.recipes.build import build_store

    created = build_store(
        recipe,
        store,
        overwrite=overwrite,
        strict=strict,
        workers=cores(workers),
        engine=engine,
        address=address,
    )
    logger.info(f"{created!r} → {store}")


@data.command
def merge(
    plan: Path,
    store: Path,
    /,
    *,
    strict: Strict = False,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Merge several stores or recipes into one; labels that a corpus does not have are unknown there.

    **Examples**

        carat data merge corpora.yaml all-corpora

    Parameters
    ----------
    plan
        YAML of the corpora, and the maps of their labels and modalities; see
        docs/reference/file_formats.md.
    store
        Folder to create.
    workers
        Number of media files of recipes from which features are extracted at a time.
    """
    from carat.data.merge.merging import merge_stores

    created = merge_stores(plan, store, overwrite=overwrite, strict=strict, workers=cores(workers))
    logger.info(f"{created!r} → {store}")


@data.command(name="import")
def import_(
    format: FormatName,
    file: Path,
    store: Path | None = None,
    /,
    *,
    corpus: CorpusOptions | None = None,
    sequences: SequenceFiles | None = None,
    options: StoreOptions | None = None,
    overwrite: Overwrite = False,
) -> None:
    """Import a published data file as a store; pickles are read without running code.

    Zeros before and after a sequence are stripped; inf and NaN are replaced by 0 and counted. Sources
    of the files: docs/how-to/corpora.md.

    **Examples**

        carat data import mosei-aligned train_valid_test.pt mosei

        carat data import mosei-unaligned mosei_senti_data_noalign.pkl mosei-raw --labels segments.csv

        carat data import mosei-unaligned noalign.pkl mosei-raw --labels train_valid_test.pt --by-index

        carat data import mmsa unaligned_50.pkl mosei-mmsa --labels segments.csv

        carat data import csd mosei --words w.csd --text t.csd --audio a.csd --labels l.csd --folds f.json

        carat data import m3ed m3ed_features.pkl m3ed

        carat data import erc IEMOCAP_features.pkl iemocap --level utterance

        carat data import erc my.pkl mine --parts text=3,labels=2,train=6,test=7 --label-names sad,happy

        carat data import mult iemocap_data_noalign.pkl iemocap

    Parameters
    ----------
    format
        Format of the file.
    file
        The data file; omitted for csd, whose files are given by options.
    store
        Folder of the store to create.
    """
    from carat.data.corpora.registry import Sources, import_data

    sources = Sources(**vars(corpus or CorpusOptions()), **vars(sequences or SequenceFiles()))
    source, target = (file, store) if store is not None else (None, file)
    imported = import_data(
        format, source, target, sources, **vars(options or StoreOptions()), overwrite=overwrite
    )
    for m, info in imported.manifest.modalities.items():
        for line in info.cleaning:
            logger.info(f"{m}: {line}")
    for note in imported.manifest.notes:
        logger.warning(f"note: {note}")
    logger.info(f"{imported!r} → {imported.folder}")


@data.command
def check(
    store: Path,
    /,
    *,
    known: Literal["mosei", "m3ed"] | None = None,
    format: Literal["mosei-aligned", "mosei-unaligned", "mmsa", "mult", "m3ed", "erc"] | None = None,
    corpus: CorpusOptions | None = None,
    strict: Annotated[bool, Parameter(help="Warnings fail, too.", negative=())] = False,
    as_json: AsJson = False,
) -> None:
    """Check a store or a data file, with a verdict and advice for each check.

    The exit code is 1 if any check fails, 2 for invalid arguments.

    **Examples**

        carat data check mosei

        carat data check mosei --known mosei --json

        carat data check train_valid_test.pt --format mosei-aligned

    Parameters
    ----------
    store
        Folder of a store, or a data file, which is imported to a temporary folder.
    known
        Published data set to compare with, where differences are failures; by default the one with the same
        labels, where they are warnings.
    format
        Format of a data file, as for `carat data import`; by default detected from the content.
    """
    from carat.cli.tables import show_findings, show_json
    from carat.data.checks.file import check_file
    from carat.data.checks.store import Finding, check_store
    from carat.data.corpora.registry import Sources
    from carat.data.store import open_store

    options = corpus or CorpusOptions()
    if store.is_dir() and (format or options != CorpusOptions()):
        raise ConfigError("--format, --labels and the like are for data files, but this is a folder")
    if store.is_dir():
        try:
            findings = check_store(open_store(store), known)
        except DataError as error:
            findings = [Finding("opens", "fail", str(error))]
    else:
        findings = check_file(store, format, Sources(**vars(options)), known)
    if as_json:
        show_json([vars(finding) for finding in findings])
    else:
        show_findings(findings)
    if any(finding.verdict == "fail" or (strict and finding.verdict == "warn") for finding in findings):
        sys.exit(1)


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
    from carat.cli.tables import show_json, show_summary
    from carat.data.store import open_store
    from carat.data.summary import summarize

    opened = open_store(store)
    if verify:
        opened.verify()
    summary = summarize(opened) | ({"verified": True} if verify else {})
    if as_json:
        show_json(summary)
    else:
        show_summary(summary)
