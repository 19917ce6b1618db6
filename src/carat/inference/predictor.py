"""Inference with a trained run: scores, labels, and the modality to which each label is attributed."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from carat.config.experiment import Experiment
from carat.data.batch import Batch, collate, mask_modalities
from carat.data.loader import usable_rows
from carat.data.store import Store
from carat.data.summary import exclusion_notes, leakage_notes
from carat.data.tokenizer import Context
from carat.inference.features import Sample, absence_notes, check_sample
from carat.inference.monitor import InputCheck
from carat.inference.prediction import Prediction, make_predictions
from carat.inference.scale import ScoreScale
from carat.inference.text import TextReader, check_texts, score_texts
from carat.models.base import Model
from carat.runs.batches import load_batches
from carat.runs.card import RunCard
from carat.runs.compatibility import check_fit, difference_notes
from carat.runs.description import describe_run, run_rows
from carat.utils.errors import DataError
from carat.utils.logging import logger
from carat.utils.tables import Table

if TYPE_CHECKING:  # scikit-learn takes a second to import
    import os

    from carat.evaluation.report import Report
    from carat.features.transcript_files import Transcript
    from carat.inference.clips.timeline import Timeline

Precision = Literal["float32", "bf16"]


class Predictor:
    """A trained model for inference, created by `load`. It is accepted wherever the folder of a run is.

    Args:
        folder: folder of the run.
        card: labels, modalities and thresholds of the run.
        experiment: experiment that the model was trained with.
        model: model with trained weights.
        precision: arithmetic of the forward pass, see `load`.
        vectors: file of word vectors, see `load`.
        scale: calibration and decisions; defaults to calibrated scores without decisions.
    """

    def __init__(
        self,
        folder: Path,
        card: RunCard,
        experiment: Experiment,
        model: Model,
        precision: Precision = "float32",
        vectors: Path | None = None,
        scale: ScoreScale | None = None,
    ) -> None:
        self.folder, self.card, self.experiment, self.precision = folder, card, experiment, precision
        self.vectors = vectors
        self.model = model.eval()
        self.scale = scale or ScoreScale(folder, card)
        self._pad_to = {m: modality.pad_to for m, modality in card.modalities.items()}

    @cached_property
    def inputs(self) -> InputCheck:
        """Distances of inputs from the training data.

        Raises:
            RunError: the file of the run with its distribution is corrupt.
        """
        return InputCheck(self.folder, self.card)

    @property
    def labels(self) -> list[str]:
        """Label names, in the order of the L axis."""
        return self.card.labels

    @property
    def widths(self) -> dict[str, int]:
        """Number of features per time step by modality, in the order of the M axis."""
        return {m: modality.width for m, modality in self.card.modalities.items()}

    @property
    def thresholds(self) -> dict[str, float]:
        """Thresholds by label, on the scale of the scores that are returned.

        Labels are predicted where raw scores are above the thresholds in the card of the run; calibration
        keeps the order of scores, so that it changes no prediction.
        """
        return self.scale.thresholds

    @cached_property
    def reader(self) -> TextReader:
        """Tokenizer of the run, with extraction of contexts.

        Raises:
            RunError: the run was not trained on tokens, or on word vectors whose file `load` was given.
            DataError: the tokenizer or the file cannot be read.
        """
        return TextReader(self.folder, self.card, self.model.max_length, self.vectors)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
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

    def predict(self, features: Mapping[str, ArrayLike], *, raw: bool | None = None) -> Prediction:
        """Score one sample.

        Args:
            features: (T, d) by modality. Absent modalities are left out; at least one must be present.
            raw: True: the features are as extracted, and are first cleaned as those of the training store
                were (columns dropped, padding stripped, standardized). False: they are as a store holds them.
                None: decided by their width where columns were dropped; otherwise they are cleaned, which
                leaves features of a store as they are, except that standardized ones need the choice.

        Returns:
            Scores, labels and attribution.

        Raises:
            DataError: the features do not fit the run, see `carat.inference.features.check_sample`.
        """
        return self.predict_batch([features], raw=raw)[0]

    def predict_batch(
        self,
        samples: Sequence[Mapping[str, ArrayLike]],
        *,
        names: Sequence[str] | None = None,
        raw: bool | None = None,
    ) -> list[Prediction]:
        """Score several samples, in batches of the experiment's batch size.

        Args:
            samples: samples, see `predict`.
            names: names of the samples for error messages; defaults to their indices.
            raw: see `predict`.

        Returns:
            One prediction per sample, in order.

        Raises:
            DataError: see `predict`.
        """
        names = names or [f"sample {i}" for i in range(len(samples))]
        checked = [self.check(sample, name, raw) for sample, name in zip(samples, names, strict=True)]
        for note in absence_notes(samples, checked):
            logger.warning(f"note: {note}")
        size = self.experiment.data.batch_size
        predictions: list[Prediction] = []
        for start in range(0, len(checked), size):
            batch = collate(checked[start : start + size], self.widths, self._pad_to).to(self.device)
            predictions += self._predict(batch)
        return predictions

    def check(self, sample: Mapping[str, ArrayLike], name: str, raw: bool | None = None) -> Sample:
        """Validate, clean and truncate a sample, see `carat.inference.features.check_sample`."""
        cards, truncation = self.card.modalities, self.experiment.data.truncation
        return check_sample(sample, name, cards, self.model.max_length, truncation=truncation, raw=raw)

    def predict_text(
        self,
        texts: Sequence[str] | str,
        *,
        words: int = 0,
        contexts: Sequence[Context] | None = None,
        conversations: Sequence[Hashable] | None = None,
    ) -> list[Prediction]:
        """Score texts with a run trained on tokens or word vectors; its other modalities are absent.

        Args:
            texts: non-empty texts, or a single one.
            words: maximum number of words to which each label is attributed by occlusion: every word is left
                out in turn, and the words with the largest drop of the score are kept. This takes one
                forward pass per word. The context counts as one more word, named `[context]`.
            contexts: context of each text, see `TextReader.contexts`; defaults to none.
            conversations: conversation name of each text, from which contexts are extracted; the texts of a
                conversation must be in order. A text whose name is "", None or NaN has no context. Excludes
                `contexts`.

        Returns:
            One prediction per text, in order, with `text` and, if requested, `words`.

        Raises:
            RunError: the run cannot read texts, see `reader`, or uses no context.
            DataError: a text is empty, the numbers of texts and contexts or conversations differ, or both
                contexts and conversations are given.

        Example:
            turns = ["Where is he?", "Gone.", "I miss him"]
            carat.load("run").predict_text(turns, words=3, conversations=["call"] * 3)[2].words
        """
        texts = [texts] if isinstance(texts, str) else texts
        check_texts(texts, words)
        contexts = self.reader.resolve_contexts(texts, contexts, conversations)
        return [prediction for prediction, _ in score_texts(self, texts, contexts, words)]

    def predict_clip(
        self,
        file: str | os.PathLike[str],
        *,
        transcript: str | os.PathLike[str] | Transcript | None = None,
        segments: str = "auto",
        words: int = 3,
    ) -> Timeline:
        """Score an audio or video file over time, by the features that the run was trained on.

        Args:
            file: audio or video file.
            transcript: transcript or file of it, see `carat.features.transcript_files`; by default, speech is
                recognized.
            segments: what is scored: "vad" for speech segments, "transcript" for utterances, "whole" for the
                whole file, or "seconds=N". "auto" takes the utterances of a transcript with times, otherwise
                speech segments, or 5 s if nobody speaks.
            words: see `predict_text`.

        Returns:
            Scored segments with times.

        Raises:
            RunError: none of the modalities of the run can be extracted from a clip.
            DataError: the file cannot be decoded, or a package or a model is not installed.

        Example:
            timeline = carat.load("my-run").predict_clip("interview.mp4")
            timeline.to_frame()
        """
        from carat.inference.clips.scoring import ClipScorer

        return ClipScorer(self).score(file, transcript, segments=segments, words=words)

    def predict_store(self, store: Store, split: str | None = None) -> Iterator[tuple[str, Prediction]]:
        """Score a store, or one of its splits. Samples that have none of the run's modalities are skipped.

        Args:
            store: store that fits the run.
            split: split to score; defaults to all.

        Yields:
            Sample IDs and predictions, in the order of the store.

        Raises:
            DataError: the store does not fit the run, or has no such split.
        """
        for split_name in [split] if split else list(store.manifest.splits):
            yield from self.predict_rows(store, split_name)

    def predict_rows(
        self, store: Store, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[str, Prediction]]:
        """Score the samples `rows(store, split)[start:stop]` of a split; see `predict_store`."""
        for batch in self.batches(store, split, slice(start, stop)):
            ids = store.ids[batch.rows.cpu().numpy()].tolist()
            yield from zip(ids, self._predict(batch), strict=True)

    def rows(self, store: Store, split: str) -> NDArray[np.int64]:
        """Rows (N,) of the samples of a split that have a modality of the run, in the order of the store."""
        return usable_rows(store, split, self._shared(store))

    def score(
        self,
        store: Store,
        split: str,
        modality_mask: NDArray[np.bool_] | None = None,
        *,
        calibrated: Literal[False] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        """Score a split as arrays.

        Args:
            store: store with the labels of the run.
            split: split of the store.
            modality_mask: (rows of the store, M), modalities in the order of the run; False masks a
                modality, and samples without any are skipped. Defaults to no masking.
            calibrated: False for raw scores; defaults to those of this predictor.

        Returns:
            Rows of the store (N,), scores (N, L) in [0, 1] and true labels (N, L), 0 or 1; they are
            floats with NaN where unknown if the store has unknown labels, otherwise integers. Raw scores
            are float32, calibrated ones float64.

        Raises:
            DataError: the store does not fit the run, or has no such split.
        """
        self.check_labels(store)
        row_parts, score_parts = [np.zeros(0, np.int64)], [np.zeros((0, len(self.labels)), np.float32)]
        for batch in self.batches(store, split):
            masked = batch if modality_mask is None else mask_modalities(batch, modality_mask)
            if len(masked.rows):
                row_parts.append(masked.rows.cpu().numpy())
                score_parts.append(self.score_batch(masked)[0])
        rows, scores = np.concatenate(row_parts), np.concatenate(score_parts)
        scores = scores if calibrated is False else self.scale(scores)
        labels = store.targets(rows) if store.has_unknown else np.asarray(store.labels)[rows]
        return rows, scores, labels

    def evaluate(self, store: Store, split: str = "test") -> Report:
        """Evaluate a split with the thresholds that were chosen on validation during training.

        Args:
            store: store with the labels of the run.
            split: split of the store.

        Returns:
            Metrics with 95 % intervals.

        Raises:
            DataError: the store does not fit the run, or has no such split, or no known label in it.
        """
        from carat.inference.evaluate import evaluate_split

        return evaluate_split(self, store, split)

    def notes(self, store: Store, splits: Sequence[str]) -> list[str]:
        """Caveats of results on these splits: missing modalities, other sources, skipped samples, leakage."""
        notes = difference_notes(self.card, store.manifest.modalities)
        self._shared(store)
        notes += [note for split in splits for note in exclusion_notes(store, split, list(self.widths))]
        return notes + leakage_notes(store)

    def _shared(self, store: Store) -> list[str]:
        """Modalities of both the run and the store, which must exist and have equal widths."""
        self._check_fit(store, None)
        return [m for m in self.widths if m in store.modalities]

    def check_labels(self, store: Store) -> None:
        """Raise DataError if the labels or feature widths of a store differ from those of the run."""
        self._check_fit(store, store.label_names)

    def _check_fit(self, store: Store, labels: list[str] | None) -> None:
        check_fit(str(self.folder), self.card, str(store.folder), labels, store.manifest.modalities)

    def batches(self, store: Store, split: str, part: slice = slice(None)) -> Iterator[Batch]:
        """Load batches of a split on the device of the model; modalities that the store lacks are masked.

        Args:
            store: store that fits the run.
            split: split of the store.
            part: slice of `rows(store, split)`.

        Yields:
            Batches with all modalities of the run, in the order of the store.

        Raises:
            DataError: the store does not fit the run, or has no such split.
        """
        rows = self.rows(store, split)[part]
        for batch in load_batches(self.model, self.card, self.experiment, store, rows, f"Scoring {split}"):
            yield batch.to(self.device)

    @torch.inference_mode()
    def score_batch(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Raw scores (B, L) in [0, 1] and attribution (B, L) of a batch with all modalities of the run."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self.model.score(batch.features, batch.masks)
        scores = outputs.scores.float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise DataError(f"{self.folder}: scores are not finite; check the scale of the features")
        return scores, outputs.attribution.cpu().numpy()

    def _predict(self, batch: Batch) -> list[Prediction]:
        scores, attribution = self.score_batch(batch)
        decisions = self.scale.decide(scores) if self.scale.decides else None
        shown, thresholds = self.scale(scores), self.scale.raw_thresholds
        notes = self.inputs.notes(batch)
        return make_predictions(scores, attribution, thresholds, list(self.widths), shown, decisions, notes)
