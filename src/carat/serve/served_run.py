"""A run that is served: what it reads, and how requests to it are scored together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from carat.data.tokenizer import NO_CONTEXT, Context
from carat.inference.features import Sample
from carat.inference.loading import load
from carat.inference.prediction import Prediction
from carat.inference.predictor import Predictor
from carat.inference.text import LETTER, WORD, check_texts, score_texts
from carat.runs.hub import parse_name
from carat.runs.locating import locate, shipped_runs
from carat.serve.errors import hide_paths
from carat.serve.schemas import ModalityInfo, RunInfo, TextResult, WordEffect
from carat.serve.timelines import prediction_values
from carat.utils.errors import CaratError, ConfigError, DataError, RunError

Result = TypeVar("Result")


@dataclass(frozen=True)
class TextItem:
    """Texts of a request.

    Args:
        texts: texts.
        words: maximum number of words per label; 0 for none.
        conversations: conversation of each text, if there are any.
        speakers: speaker of each text; may be empty.
    """

    texts: Sequence[str]
    words: int = 0
    conversations: Sequence[str] | None = None
    speakers: Sequence[str] = ()

    @property
    def weight(self) -> int:
        """Number of texts to score, each without one of its words included."""
        return len(self.texts) + (self.count_words() if self.words else 0)

    def count_words(self) -> int:
        """Number of words of all texts."""
        return sum(len(WORD.findall(text)) for text in self.texts)


@dataclass(frozen=True)
class FeaturesItem:
    """Samples of a request.

    Args:
        samples: features (T, d) by sample ID and modality.
        raw: see `Predictor.predict`.
    """

    samples: Mapping[str, Sample]
    raw: bool | None = None


class ServedRun:
    """A run with its name.

    Args:
        name: name by which clients choose the run.
        predictor: loaded run.
    """

    def __init__(self, name: str, predictor: Predictor) -> None:
        self.name, self.predictor = name, predictor
        self.text_problem = _problem_of(lambda: predictor.reader)
        """Why the run cannot read texts; empty if it can."""
        self.clip_problem = _problem_of(lambda: _check_clips(predictor))
        """Why none of the modalities of the run can be extracted from clips; empty if one can."""

    @property
    def thresholds(self) -> dict[str, float]:
        """Decision threshold by label, on the scale of the scores, in the order of the labels."""
        return dict(self.predictor.thresholds)

    def info(self) -> RunInfo:
        """Describe the run for clients, without paths of this machine."""
        card, model = self.predictor.card, self.predictor.model
        return RunInfo(
            name=self.name,
            method=self.predictor.experiment.method.name,
            labels=card.labels,
            thresholds=self.thresholds,
            calibrated=self.predictor.scale.calibrated,
            modalities={
                m: ModalityInfo(width=x.width, max_length=model.max_length[m], source=hide_paths(x.source))
                for m, x in card.modalities.items()
            },
            validation=card.validation,
            trained_on=card.store,
            reads_text=not self.text_problem,
            reads_clips=not self.clip_problem,
            context=0 if self.text_problem else self.predictor.reader.context_tokens,
            notes=card.notes,
        )

    def check_text(self, item: TextItem) -> None:
        """Check texts before they wait.

        Raises:
            CaratError: the run cannot read them, or a text is empty.
        """
        if self.text_problem:
            raise RunError(self.text_problem)
        for i, text in enumerate(item.texts, start=1):
            if not text.strip():
                raise DataError(f"text {i} of {len(item.texts)} is empty")
        check_texts(item.texts, item.words)
        if item.conversations is not None and not self.predictor.reader.context_tokens:
            raise RunError(f"{self.name}: the run uses no context; leave out 'conversations'")

    def score_texts(self, items: Sequence[TextItem]) -> list[list[TextResult] | Exception]:
        """Score the texts of several requests together; a request that fails does not affect the others."""
        return score_together(self._score_texts, items)

    def _score_texts(self, items: Sequence[TextItem]) -> list[list[TextResult]]:
        reader = self.predictor.reader
        results: list[list[TextResult]] = [[] for _ in items]
        for words in dict.fromkeys(item.words for item in items):
            chosen = [i for i, item in enumerate(items) if item.words == words]
            texts = [text for i in chosen for text in items[i].texts]
            contexts: list[Context] = []
            for i in chosen:
                contexts += reader.resolve_contexts(items[i].texts, None, items[i].conversations)
            owners = [(i, k) for i in chosen for k in range(len(items[i].texts))]
            scored = score_texts(self.predictor, texts, contexts, words)
            for (i, k), context, (prediction, occluded) in zip(owners, contexts, scored, strict=True):
                speaker = items[i].speakers[k] if items[i].speakers else ""
                has_context = context != NO_CONTEXT
                results[i].append(make_text_result(prediction, occluded, speaker, has_context=has_context))
        return results

    def read_samples(self, item: FeaturesItem) -> FeaturesItem:
        """Check and clean the samples of a request; the result is scored by `score_features`.

        Raises:
            DataError: the features do not fit the run.
        """
        checked = {id: self.predictor.check(x, f"sample '{id}'", item.raw) for id, x in item.samples.items()}
        return FeaturesItem(checked, raw=False)

    def score_features(self, items: Sequence[FeaturesItem]) -> list[list[Prediction] | Exception]:
        """Score the checked samples of several requests together, see `score_texts`."""
        return score_together(self._score_features, items)

    def _score_features(self, items: Sequence[FeaturesItem]) -> list[list[Prediction]]:
        predictions = iter(
            self.predictor.predict_batch(
                [sample for item in items for sample in item.samples.values()],
                names=[f"sample '{id}'" for item in items for id in item.samples],
                raw=False,
            )
        )
        return [[next(predictions) for _ in item.samples] for item in items]


def score_together(
    score: Callable[[Sequence[Any]], list[Result]], items: Sequence[Any]
) -> list[Result | Exception]:
    """Score items together, or if that fails, each by itself; returns a result or an exception for each."""
    try:
        return list(score(items))
    except Exception as error:
        if len(items) == 1:
            return [error]
        return [score_together(score, [item])[0] for item in items]


def make_text_result(
    prediction: Prediction,
    occluded: Sequence[tuple[str, Mapping[str, float]]],
    speaker: str = "",
    *,
    has_context: bool = False,
) -> TextResult:
    """Convert the prediction of a text to an answer.

    Args:
        prediction: prediction.
        occluded: scores without each word that the model reads, in order, then those without the context.
        speaker: who says it.
        has_context: whether it has a context.
    """

    def drops(without: Mapping[str, float]) -> dict[str, float]:
        return {name: round(score - without[name], 6) for name, score in prediction.scores.items()}

    words = [match for match in WORD.finditer(prediction.text) if LETTER.search(match.group())]
    read = occluded[:-1] if has_context else occluded
    return TextResult(
        **prediction_values(prediction, TextResult),
        speaker=speaker,
        effects=[
            WordEffect(start=match.start(), end=match.end(), drops=drops(without))
            for match, (_, without) in zip(words, read, strict=False)
        ],
        context_drops=drops(occluded[-1][1]) if has_context and occluded else {},
    )


def find_runs(runs: Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """Folders of runs by their names: those of the folders, or of the repositories on the hub.

    Args:
        runs: folders or names, see `carat.load`; by default those that carat comes with.

    Raises:
        ConfigError: there is no run, or two have the same name.
        RunError: a run cannot be downloaded.
    """
    runs = runs or list(shipped_runs())
    if not runs:
        raise ConfigError("give at least one run, e.g. carat serve my-run")
    folders: dict[str, str] = {}
    for run in runs:
        on_hub = parse_name(run)
        folder = locate(run).absolute()
        name = folder.resolve().name if on_hub is None else on_hub.repository.rpartition("/")[2]
        if name in folders:
            raise ConfigError(f"two runs are named '{name}'; rename one of the folders")
        folders[name] = str(folder)
    return folders


def load_runs(folders: Mapping[str, str], **options: Any) -> dict[str, ServedRun]:
    """Load runs.

    Args:
        folders: their folders by name.
        options: arguments of `carat.load`.

    Raises:
        RunError: a run cannot be loaded.
    """
    return {name: ServedRun(name, load(folder, **options)) for name, folder in folders.items()}


def _problem_of(check: Callable[[], object]) -> str:
    try:
        check()
    except CaratError as error:
        return str(error)
    return ""


def _check_clips(predictor: Predictor) -> None:
    from carat.inference.clips.scoring import ClipScorer

    ClipScorer(predictor, cache=False)
