"""Tokenization of texts for a run, and attribution of scores to words by occlusion."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carat.config.encoders import ENCODERS
from carat.data.tokenizer import NO_CONTEXT, Context, ContextTokenizer, drop_context
from carat.inference.word_vectors import WordVectors, vector_modality
from carat.runs.card import RunCard
from carat.utils.errors import DataError, RunError

if TYPE_CHECKING:
    from carat.inference.prediction import Prediction
    from carat.inference.predictor import Predictor

WORD, LETTER = re.compile(r"\S+"), re.compile(r"\w")
"""A word is what is between spaces and has a letter or digit."""
CONTEXT_NAME = "[context]"
"""Name of a text's context where it is listed among the words."""
MAX_OCCLUSIONS, MAX_CHARACTERS = 100_000, 1 << 27
"""Maximum number and total length of texts without one of their words that are scored together."""
MIN_DROP = 0.005
"""Minimum drop of a score for a word to be listed."""


class TextReader:
    """Tokenizes texts as the training store of a run did, or looks up their word vectors.

    Args:
        folder: folder of the run.
        card: card of the run.
        max_lengths: maximum length in tokens that the model accepts, by modality.
        vectors: file of the word vectors that the run was trained on, if it was.

    Raises:
        RunError: the run has no modality that can be computed from texts, or more than one.
        DataError: the tokenizer or the vectors cannot be read.
    """

    def __init__(
        self, folder: Path, card: RunCard, max_lengths: Mapping[str, int], vectors: Path | None = None
    ) -> None:
        self._folder = folder
        self._tokenizer: ContextTokenizer | WordVectors
        token_modalities = {m: x.tokens for m, x in card.modalities.items() if x.tokens is not None}
        self.context_tokens = 0
        """Maximum number of context tokens on each side of a text; 0 if the run uses no context."""
        self.truncated = 0
        """Texts so far that reached `max_length` without their context."""
        self.without_vectors = 0
        """Number of texts none of whose words has a vector."""
        if not token_modalities:
            self.modality = vector_modality(folder, card, vectors)
            self.max_length = max_lengths[self.modality]
            assert vectors is not None
            self._tokenizer = WordVectors(vectors, card.modalities[self.modality].source, self.max_length)
            return
        if len(token_modalities) > 1:
            raise RunError(
                f"{folder}: the run was trained on the tokens of {' and '.join(token_modalities)}, so it "
                f"cannot read texts; train on a store whose recipe has one source 'tokens'"
            )
        ((self.modality, tokens),) = token_modalities.items()
        self.max_length = min(tokens.longest, max_lengths[self.modality])
        """Length in tokens to which texts are truncated, including special tokens and context."""
        self.context_tokens = tokens.context
        self._tokenizer = ContextTokenizer(folder / ENCODERS / self.modality, tokens.longest, tokens.context)

    def contexts(
        self,
        texts: Sequence[str] | str,
        conversations: Sequence[Hashable] | None = None,
        order: Sequence[float] | None = None,
    ) -> list[Context]:
        """Extract the context of each text.

        Args:
            texts: n texts; conversations may be interleaved.
            conversations: n conversation names; a text whose name is "", None or NaN has no context.
                Defaults to a single conversation.
            order: n numbers by which the texts of a conversation are sorted; defaults to the order given.

        Returns:
            n contexts, for `Predictor.predict_text`.

        Raises:
            RunError: the run uses no context.
            DataError: the lengths of the arguments differ.
        """
        self._check_uses_context()
        assert isinstance(self._tokenizer, ContextTokenizer)
        texts = [texts] if isinstance(texts, str) else texts
        names = [0] * len(texts) if conversations is None else conversations
        return self._tokenizer.contexts(texts, names, order)

    def tokenize(self, texts: Sequence[str], contexts: Sequence[Context] | None = None) -> list[NDArray[Any]]:
        """Tokenize texts, or look up their word vectors.

        Args:
            texts: n texts; they may be empty.
            contexts: n contexts; defaults to none.

        Returns:
            For each text, token IDs (T, 1), or with context IDs and token types (T, 2), including special
            tokens; or word vectors (T, d).

        Raises:
            DataError: the numbers of texts and contexts differ.
        """
        if isinstance(self._tokenizer, WordVectors):
            vectors = self._tokenizer.encode(texts)
            self.truncated += sum(len(steps) > self.max_length for steps in vectors)
            self.without_vectors += sum(not steps.any() for steps in vectors)
            return [steps[: self.max_length] for steps in vectors]
        tokens = [steps[: self.max_length] for steps in self._tokenizer.encode(texts, contexts)]
        self.truncated += sum(len(drop_context(steps)) == self.max_length for steps in tokens)
        return tokens

    def resolve_contexts(
        self,
        texts: Sequence[str],
        contexts: Sequence[Context] | None,
        conversations: Sequence[Hashable] | None,
    ) -> Sequence[Context]:
        """Validate contexts, or extract them from conversations.

        Args:
            texts: n texts.
            contexts: n contexts, see `contexts`.
            conversations: n conversation names, see `contexts`.

        Returns:
            n contexts; `NO_CONTEXT` if neither is given.

        Raises:
            DataError: both are given, their number is not n, or `contexts` holds something else.
            RunError: the run uses no context.
        """
        if conversations is not None:
            if contexts is not None:
                raise DataError("contexts and conversations exclude each other; give one of them")
            return self.contexts(texts, conversations)
        if contexts is None:
            return [NO_CONTEXT] * len(texts)
        self._check_uses_context()
        if not all(isinstance(context, Context) for context in contexts):
            raise DataError(
                "contexts: expected the result of reader.contexts(texts, conversations); pass names as "
                "`conversations`"
            )
        if len(contexts) != len(texts):
            raise DataError(f"{len(texts)} texts, but {len(contexts)} contexts")
        return contexts

    def _check_uses_context(self) -> None:
        if not self.context_tokens:
            raise RunError(
                f"{self._folder}: the run reads each text without context, so it takes no conversations; "
                f"train on a store whose recipe sets `context`"
            )

    def occlude(
        self, texts: Sequence[str], contexts: Sequence[Context], words: int
    ) -> Iterator[list[tuple[str, Context, list[Occlusion]]]]:
        """Leave out each word that the model reads of each text, see `occlude`.

        Args:
            texts: n texts.
            contexts: n contexts.
            words: 0 leaves out nothing.

        Yields:
            Groups of texts with their contexts and occlusions, whose number and length are limited.
        """
        group: list[tuple[str, Context, list[Occlusion]]] = []
        number = characters = 0
        for text, context in zip(texts, contexts, strict=True):
            parts = occlude(*self._tokenizer.used_part(text), context) if words else []
            number, characters = number + len(parts), characters + sum(len(part.text) for part in parts)
            if group and (number > MAX_OCCLUSIONS or characters > MAX_CHARACTERS):
                yield group
                group, number, characters = [], len(parts), 0
            group.append((text, context, parts))
        yield group

    def convert_ids_to_tokens(self, ids: NDArray[Any]) -> list[str]:
        """Convert token IDs (T,) to tokens."""
        assert isinstance(self._tokenizer, ContextTokenizer)
        return self._tokenizer.convert_ids_to_tokens(ids)


class Occlusion(NamedTuple):
    """A text without one of its words, or without its context."""

    word: str
    """The word that was left out, or `CONTEXT_NAME`."""
    text: str
    context: Context


def occlude_words(text: str, end: int | None = None) -> list[tuple[str, str]]:
    """Leave out each word of a text in turn: the word, and the remaining text.

    Args:
        text: text.
        end: position in characters from which on words are kept.

    >>> occlude_words("so  glad")
    [('so', 'glad'), ('glad', 'so')]
    """
    return [
        (match.group(), f"{text[: match.start()]}{text[match.end() :].lstrip()}".strip())
        for match in WORD.finditer(text)
        if (end is None or match.start() < end) and LETTER.search(match.group())
    ]


def occlude(text: str, end: int | None, context: Context) -> list[Occlusion]:
    """Leave out each word of a text in turn, then its context, if it has any; see `occlude_words`."""
    occlusions = [Occlusion(word, remaining, context) for word, remaining in occlude_words(text, end)]
    return occlusions if context == NO_CONTEXT else [*occlusions, Occlusion(CONTEXT_NAME, text, NO_CONTEXT)]


def rank_words(words: Sequence[str], drops: NDArray[Any], max_words: int) -> list[str]:
    """Rank words by the drop of a score without them, without surrounding punctuation.

    Args:
        words: W words of a text, in order.
        drops: (W,) score of the text minus its score without the word.
        max_words: maximum number of words to return.

    Returns:
        Words whose drop is at least `MIN_DROP`, the largest drop first.
    """
    order = np.argsort(-drops, kind="stable")[:max_words]
    return [words[i].strip(".,;:!?\"'()…") for i in order if drops[i] >= MIN_DROP]


def attribute_to_words(
    scores: Mapping[str, float], occluded: Sequence[tuple[str, Mapping[str, float]]], max_words: int
) -> dict[str, list[str]]:
    """Attribute the scores of a text to its words by occlusion.

    Args:
        scores: scores of the text by label, in [0, 1].
        occluded: for each word of the text, the word and the scores without it.
        max_words: maximum number of words per label.

    Returns:
        By label, see `rank_words`; empty if `occluded` is.
    """
    words = [word for word, _ in occluded]
    return {
        name: rank_words(words, score - np.array([without[name] for _, without in occluded]), max_words)
        for name, score in scores.items()
        if words
    }


def score_texts(
    predictor: Predictor,
    texts: Sequence[str],
    contexts: Sequence[Context],
    words: int,
    others: Sequence[Mapping[str, ArrayLike]] | None = None,
) -> Iterator[tuple[Prediction, list[tuple[str, dict[str, float]]]]]:
    """Score texts, with the other modalities of their samples if there are any.

    Args:
        predictor: run that reads texts.
        texts: n texts, not empty.
        contexts: n contexts.
        words: see `Predictor.predict_text`.
        others: features as extracted (T, d) of n samples, by modality.

    Yields:
        For each text its prediction, and the scores by label without each word that the model reads.
    """
    start = 0
    for group in predictor.reader.occlude(texts, contexts, words):
        parts = [(i, part) for i, (_, _, left_out) in enumerate(group, start) for part in left_out]
        rows = [*range(start, start + len(group)), *(i for i, _ in parts)]
        predictions = _score_tokens(
            predictor,
            [*(text for text, _, _ in group), *(part.text for _, part in parts)],
            [*(context for _, context, _ in group), *(part.context for _, part in parts)],
            [{} if others is None else others[i] for i in rows],
        )
        start += len(group)
        occluded_scores = (prediction.scores for prediction in predictions[len(group) :])
        for (text, _, left_out), prediction in zip(group, predictions, strict=False):
            occluded = [(part.word, next(occluded_scores)) for part in left_out]
            attributed = attribute_to_words(prediction.scores, occluded, words)
            yield replace(prediction, text=text, words=attributed), occluded


def _score_tokens(
    predictor: Predictor,
    texts: Sequence[str],
    contexts: Sequence[Context],
    others: Sequence[Mapping[str, ArrayLike]],
) -> list[Prediction]:
    """Score texts, which may be empty, in batches of similar lengths; predictions are in order."""
    tokens, name = predictor.reader.tokenize(texts, contexts), predictor.reader.modality
    samples = [{**other, name: ids} for other, ids in zip(others, tokens, strict=True)]
    order = np.argsort([len(ids) for ids in tokens], kind="stable")
    predictions = predictor.predict_batch([samples[i] for i in order], raw=True)
    return [predictions[i] for i in np.argsort(order)]


def check_texts(texts: Sequence[str], words: int) -> None:
    """Validate the arguments of `Predictor.predict_text`.

    Raises:
        DataError: a text is empty, not a string or not valid Unicode, or `words` is negative.
    """
    if words < 0:
        raise DataError(f"words must not be negative, found {words}")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"text {i + 1} of {len(texts)}: expected a non-empty string, found {text!r}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text {i + 1} of {len(texts)}: half of a surrogate pair") from error
