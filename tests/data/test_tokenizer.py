"""Tests of conversations, contexts and their tokens."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from carat.data.tokenizer import (
    NO_CONTEXT,
    Context,
    ContextTokenizer,
    append_context,
    extract_contexts,
    group_conversations,
)

TEXTS = st.lists(st.tuples(st.lists(st.integers(1, 99), max_size=5), st.sampled_from("abc")), max_size=12)


@given(TEXTS, st.integers(1, 12))
def test_contexts_are_the_nearest_tokens_of_the_conversation(
    texts: list[tuple[list[int], str]], context_tokens: int
) -> None:
    ids, names = [x for x, _ in texts], [name for _, name in texts]
    contexts = extract_contexts(ids, group_conversations(names), context_tokens)
    assert len(contexts) == len(texts)
    for i, context in enumerate(contexts):
        before = [token for x, name in texts[:i] if name == names[i] for token in x]
        after = [token for x, name in texts[i + 1 :] if name == names[i] for token in x]
        assert context == (before[-context_tokens:], after[:context_tokens])


def test_texts_are_sorted_stably_by_order() -> None:
    names = ["a", "a", "b", "a"]
    assert group_conversations(names) == [[0, 1, 3], [2]]
    assert group_conversations(names, [5.0, 1.0, 0.0, 1.0]) == [[2], [1, 3, 0]]


@pytest.mark.parametrize("unnamed", ["", None, float("nan")])
def test_unnamed_conversations_have_one_text(unnamed: object) -> None:
    assert group_conversations([unnamed, 0, unnamed, 0]) == [[0], [1, 3], [2]]


@given(
    st.lists(st.integers(1, 99), min_size=2, max_size=8),
    st.lists(st.integers(100, 199), max_size=8),
    st.lists(st.integers(200, 299), max_size=8),
    st.integers(8, 20),
)
def test_each_side_takes_half_of_the_remaining_length(
    own: list[int], before: list[int], after: list[int], max_length: int
) -> None:
    steps = append_context(own, Context(before, after), [3], max_length)
    assert steps.dtype == np.int32
    assert len(steps) <= max_length
    assert steps[: len(own)].tolist() == [[x, 0] for x in own]
    appended = steps[len(own) :]
    assert (appended[:, 1] == 1).all()
    words = [x for x in appended[:, 0].tolist() if x != 3]
    kept_before, kept_after = [x for x in words if x < 200], [x for x in words if x >= 200]
    assert kept_before == before[len(before) - len(kept_before) :]
    assert kept_after == after[: len(kept_after)]
    half = max(0, max_length - len(own) - 2) // 2
    assert (len(kept_before), len(kept_after)) == (min(half, len(before)), min(half, len(after)))


def test_text_without_context() -> None:
    assert append_context([2, 5, 3], NO_CONTEXT, [3], 9).tolist() == [[2, 0], [5, 0], [3, 0]]


def test_empty_text_gets_no_context() -> None:
    assert append_context([], Context([7], [8]), [], 9).shape == (0, 2)


@pytest.mark.parametrize(
    ("template", "end"),
    [("[CLS] $A [SEP]", [3]), ("[CLS] $A", []), ("$A", []), ("[CLS] $A [SEP] [CLS]", [3])],
)
def test_each_side_ends_with_the_special_token_after_a_text(
    template: str, end: list[int], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {"[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "we": 4, "so": 5}
    word_level = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    word_level.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    word_level.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    word_level.save(str(tmp_path / "tokenizer.json"))
    tokenizer = ContextTokenizer(tmp_path, 20, 3)
    (first, second) = tokenizer.encode(["we", "so"], tokenizer.contexts(["we", "so"], [0, 0]))
    own = [2] * template.startswith("[CLS]") + [4] + end + [2] * template.endswith(" [CLS]")
    assert first[:, 0].tolist() == [*own, *end, 5, *end]
    assert second[-len(end) - 1 - len(end) :, 0].tolist() == [4, *end, *end]
