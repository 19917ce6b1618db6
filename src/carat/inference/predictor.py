"""Use a trained run: scores, labels, and which modality carried each label."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError

from carat.config.experiment import Experiment
from carat.data.batch import Batch, collate, mask_modalities
from carat.data.loader import check_lengths, make_loader, usable_rows
from carat.data.store import Store
from carat.data.summary import exclusion_notes, leakage_notes
from carat.data.tokenizer import Context
from carat.inference.features import check_sample
from carat.inference.prediction import Prediction, make_predictions
from carat.inference.text import Reader, carriers, check_texts, without_each_part
from carat.models.base import Model
from carat.models.build import build
from carat.runs.card import RunCard, check_files, read_run, read_weights
from carat.runs.compatibility import check_fit
from carat.runs.description import describe_run, run_rows
from carat.runs.folder import WEIGHTS
from carat.utils.errors import DataError, RunError
from carat.utils.progress import track
from carat.utils.tables import Table

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from carat.evaluation.report import Report

Precision = Literal["float32", "bf16"]


class Predictor:
    """A trained method, ready to use. Make one with `load`; whatever takes a run's folder takes it too.

    Args:
        folder: of the run.
        card: labels, modalities, thresholds.
        experiment: as it was trained.
        model: with its trained weights.
        precision: of the arithmetic, see `load`.
    """

    def __init__(
        self,
        folder: Path,
        card: RunCard,
        experiment: Experiment,
        model: Model,
        precision: Precision = "float32",
    ) -> None:
        self.folder, self.card, self.experiment, self.precision = folder, card, experiment, precision
        self.model = model.eval()
        self._pad_to = {m: modality.pad_to for m, modality in card.modalities.items()}

    @property
    def labels(self) -> list[str]:
        """Label names, in the order of the L axis."""
        return self.card.labels

    @property
    def widths(self) -> dict[str, int]:
        """Features per time step by modality, in the order of the M axis."""
        return {m: modality.width for m, modality in self.card.modalities.items()}

    @cached_property
    def reader(self) -> Reader:
        """What turns texts into the run's tokens.

        Raises:
            RunError: the run was not trained on tokens.
        """
        return Reader(self.folder, self.card, self.model.max_length)

    @property
    def device(self) -> torch.device:
        """Where the method is."""
        return next(chain(self.model.parameters(), self.model.buffers())).device

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        more = f"{', '.join(self.widths)} → {', '.join(self.labels)}"
        return describe_run("Predictor", self.folder, self.card, self.experiment, more)

    def _repr_html_(self) -> str:
        rows = run_rows(self.folder, self.card, self.experiment)
        device = f"{self.device}, {self.precision}"
        return Table(["predictor", ""], [*rows, ["device", device]], digits=3).to_html()

    def predict(self, features: Mapping[str, ArrayLike], *, raw: bool = False) -> Prediction:
        """Score one sample.

        Args:
            features: (T, d) by modality; absent modalities are left out, but not all.
            raw: they are as the extractor gave them, and are cleaned as the recipe of the training store
                did (columns dropped, standardised); otherwise they are as a store holds them.

        Raises:
            DataError: names the modality, what was found and what was expected.
        """
        return self.predict_batch([features], raw=raw)[0]

    def predict_batch(
        self,
        samples: Sequence[Mapping[str, ArrayLike]],
        *,
        names: Sequence[str] | None = None,
        raw: bool = False,
    ) -> list[Prediction]:
        """Score several samples; the batch size is the experiment's.

        Args:
            samples: each as for `predict`.
            names: what errors call the samples; their place by default.
            raw: as for `predict`.
        """
        names = names or [f"sample {i}" for i in range(len(samples))]
        cards, max_length = self.card.modalities, self.model.max_length
        truncation = self.experiment.data.truncation
        checked = [
            check_sample(sample, name, cards, max_length, truncation=truncation, raw=raw)
            for sample, name in zip(samples, names, strict=True)
        ]
        size = self.experiment.data.batch_size
        out: list[Prediction] = []
        for start in range(0, len(checked), size):
            batch = collate(checked[start : start + size], self.widths, self._pad_to).to(self.device)
            out += self._name(*self._score(batch))
        return out

    def predict_text(
        self,
        texts: Sequence[str] | str,
        *,
        words: int = 0,
        contexts: Sequence[Context] | None = None,
        conversations: Sequence[Hashable] | None = None,
    ) -> list[Prediction]:
        """Score texts by a run that reads tokens; its other modalities are absent.

        Args:
            texts: not empty ones; or a single one.
            words: name so many words at most that carried each label: those without which its score falls
                most. Every word is left out once, so this takes as many times longer as a text has words.
                What was said before and after counts as one more word, `AROUND`.
            contexts: what was said before and after each, see `Reader.contexts`; nothing by default.
            conversations: instead, a name of each text's conversation, whose texts are given in the order in
                which they were said; "", None or NaN where a text stands alone.

        Raises:
            RunError: the run was not trained on tokens, or reads no contexts.
            DataError: a text is empty, there are not as many contexts or conversations as texts, or both.

        Example:
            said = ["Where is he?", "Gone.", "I miss him"]
            carat.load("run").predict_text(said, words=3, conversations=["call"] * 3)[2].words
        """
        texts = [texts] if isinstance(texts, str) else texts
        check_texts(texts, words)
        said = self.reader.told(texts, contexts, conversations)
        taken_apart = [without_each_part(*pair) if words else [] for pair in zip(texts, said, strict=True)]
        rests = [(text, context) for parts in taken_apart for _, text, context in parts]
        found = self._predict_tokens(
            [*texts, *(text for text, _ in rests)], [*said, *(context for _, context in rests)]
        )
        rest = (x.scores for x in found[len(texts) :])
        without = [[(word, next(rest)) for word, *_ in parts] for parts in taken_apart]
        return [
            replace(whole, text=text, words=carriers(whole.scores, parts, words))
            for whole, text, parts in zip(found, texts, without, strict=False)
        ]

    def _predict_tokens(self, texts: Sequence[str], contexts: Sequence[Context]) -> list[Prediction]:
        """In order; similar lengths are scored together. Texts may be empty."""
        read = self.reader.read(texts, contexts)
        samples = [{self.reader.modality: ids} for ids in read]
        order = np.argsort([len(ids) for ids in read], kind="stable")
        found = self.predict_batch([samples[i] for i in order])
        return [found[place] for place in np.argsort(order)]

    def own_features(
        self, samples: Mapping[str, Mapping[str, NDArray[Any]]], raw: bool
    ) -> tuple[dict[str, dict[str, NDArray[Any]]], list[str]]:
        """Samples by id without modalities that the run does not use, and what a user should know of that."""
        notes = []
        unused = {m for sample in samples.values() for m in sample} - self.widths.keys()
        if unused and all(sample.keys() & self.widths.keys() for sample in samples.values()):
            samples = {
                id: {m: x for m, x in sample.items() if m in self.widths} for id, sample in samples.items()
            }
            notes.append(f"the run does not use: {', '.join(sorted(unused))}")
        transforms = {m: card.transform for m, card in self.card.modalities.items()}
        cleaned = [m for m, transform in transforms.items() if transform and transform.changes_values]
        if cleaned and not raw:
            notes.append(
                f"the recipe cleaned {', '.join(cleaned)}; if the file holds features as the extractor gave "
                f"them, add --raw"
            )
        return {id: dict(sample) for id, sample in samples.items()}, notes

    def predict_store(self, store: Store, split: str | None = None) -> Iterator[tuple[str, Prediction]]:
        """Score a store, or one split of it: ids and predictions, in the store's order.

        Samples that have none of the run's modalities are left out.

        Raises:
            DataError: the store does not fit the run.
        """
        for split_name in [split] if split else list(store.manifest.splits):
            yield from self.predict_rows(store, split_name)

    def predict_rows(
        self, store: Store, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[str, Prediction]]:
        """Score a part of a split: ids and predictions of `rows(store, split)[start:stop]`.

        Raises:
            DataError: the store does not fit the run.
        """
        for batch in self.batches(store, split, slice(start, stop)):
            ids = store.ids[batch.rows.cpu().numpy()].tolist()
            yield from zip(ids, self._name(*self._score(batch)), strict=True)

    def rows(self, store: Store, split: str) -> NDArray[np.int64]:
        """Rows of a split (N,) that can be scored, in the store's order.

        Raises:
            DataError: the store does not fit the run, or has no such split.
        """
        return usable_rows(store, split, self._shared(store))

    def score(
        self, store: Store, split: str, seen: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.uint8]]:
        """Rows of the store (N,), scores (N, L) and true labels (N, L) of the samples that can be scored.

        Args:
            store: the data.
            split: of it.
            seen: which modalities may be seen, (rows of the store, M) in the order of the run's; samples
                that are left without any are left out. All by default.

        Raises:
            DataError: the store does not fit the run, or has no such split.
        """
        self.check_labels(store)
        found = self._score_store(store, split, seen)
        scored = [(batch.rows.cpu().numpy(), scores) for batch, scores, _ in found]
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in scored)])
        scores = np.concatenate([np.zeros((0, len(self.labels)), np.float32), *(x for _, x in scored)])
        return rows, scores, np.asarray(store.labels)[rows]

    def evaluate(self, store: Store, split: str = "test") -> Report:
        """Metrics of a split, with the thresholds found on validation when the run was trained.

        Raises:
            DataError: the store does not fit the run, or has no such split.
        """
        from carat.evaluation.report import make_report

        rows, scores, labels = self.score(store, split)
        notes = self.notes(store, [split])
        return make_report(split, scores, labels, store.groups[rows], self.card.thresholds, notes)

    def notes(self, store: Store, splits: Sequence[str]) -> list[str]:
        """What a user should know before trusting this run on these splits of a store."""
        notes = []
        for m, expected in self.card.modalities.items():
            if m not in store.modalities:
                notes.append(f"the store has no {m}: it counts as absent from every sample")
            elif (source := store.manifest.modalities[m].source) != expected.source:
                notes.append(f"{m} comes from {source}, the run was trained on {expected.source}")
        self._shared(store)
        notes += [note for split in splits for note in exclusion_notes(store, split, list(self.widths))]
        return notes + leakage_notes(store)

    def _shared(self, store: Store) -> list[str]:
        """The run's modalities that the store has.

        Raises:
            DataError: none, or one of another width.
        """
        check_fit(str(self.folder), self.card, str(store.folder), None, store.manifest.modalities)
        return [m for m in self.widths if m in store.modalities]

    def check_labels(self, store: Store) -> None:
        """Refuse a store whose labels or widths are not the run's.

        Raises:
            DataError: says what differs.
        """
        check_fit(
            str(self.folder), self.card, str(store.folder), store.label_names, store.manifest.modalities
        )

    def batches(self, store: Store, split: str, part: slice = slice(None)) -> Iterator[Batch]:
        """The samples of a split that can be scored, on the method's device, with every modality of the run.

        Args:
            store: the data.
            split: of it.
            part: of `rows(store, split)`.

        Raises:
            DataError: the store does not fit the run, or has no such split.
        """
        data = self.experiment.data
        modalities = self._shared(store)
        rows = self.rows(store, split)[part]
        if not data.truncation:
            check_lengths(store, rows, modalities, self.model.max_length)
        loader = make_loader(
            store,
            rows,
            modalities,
            batch_size=data.batch_size,
            max_length=self.model.max_length,
            pad_to=self._pad_to,
        )
        for batch in track(loader, f"Scoring {split}", total=len(loader)):
            size = len(batch.rows)
            features = {m: batch.features.get(m, torch.zeros(size, 1, d)) for m, d in self.widths.items()}
            masks = {m: batch.masks.get(m, torch.zeros(size, 1, dtype=torch.bool)) for m in self.widths}
            yield Batch(features, masks, batch.labels, batch.rows).to(self.device)

    def _score_store(
        self, store: Store, split: str, seen: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[Batch, NDArray[np.float32], NDArray[np.int64]]]:
        for batch in self.batches(store, split):
            left = batch if seen is None else mask_modalities(batch, seen)
            if left.rows.shape[0]:
                yield left, *self._score(left)

    @torch.inference_mode()
    def _score(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self.model.score(batch.features, batch.masks)
        scores = outputs.scores.float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise DataError(
                f"{self.folder}: scores are not finite; the features are far from those of training"
            )
        return scores, outputs.attribution.cpu().numpy()

    def _name(self, scores: NDArray[np.float32], attribution: NDArray[np.int64]) -> list[Prediction]:
        thresholds = {name: self.card.thresholds[name] for name in self.labels}
        return make_predictions(scores, attribution, thresholds, list(self.widths))


def load(
    run: str | os.PathLike[str], device: str | None = None, precision: Precision = "float32"
) -> Predictor:
    """Load a finished run; the store that it was trained on is not needed.

    Args:
        run: folder made by `carat train`, or a `TrainedRun`.
        device: where to score, e.g. "cpu" or "cuda:1"; a GPU when there is one, by default.
        precision: "float32", with which thresholds were searched, or "bf16", which is faster on processors
            that know it and moves scores by about a hundredth.

    Returns:
        The predictor, with the model on the device.

    Raises:
        RunError: no run, an unfinished or a damaged one.

    Example:
        carat.load("demo-run", device="cpu").labels
    """
    folder = Path(run)
    card, experiment = read_run(folder)
    check_files(folder, card)
    with torch.random.fork_rng(devices=[]):  # weights that are replaced cost the user no randomness
        model = build(experiment.method, experiment.encoders, card.labels, card.modalities, folder)
    try:
        model.load_state_dict(read_weights(folder, card))
    except (SafetensorError, OSError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        raise RunError(f"{folder / WEIGHTS}: damaged or of another experiment ({problem})") from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(folder, card, experiment, model.to(device), precision)
