"""The context of a text: which tokens, how many, in which order."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from carat.data.tokenizer import (
    NOTHING,
    Context,
    ContextTokenizer,
    contexts_of,
    conversations_of,
    with_context,
)

TEXTS = st.lists(st.tuples(st.lists(st.integers(1, 99), max_size=5), st.sampled_from("abc")), max_size=12)


@given(TEXTS, st.integers(1, 12))
def test_the_nearest_tokens_of_a_conversation(texts: list[tuple[list[int], str]], context: int) -> None:
    ids, names = [x for x, _ in texts], [name for _, name in texts]
    found = contexts_of(ids, conversations_of(names), context)
    assert len(found) == len(texts)
    for i, near in enumerate(found):
        before = [token for x, name in texts[:i] if name == names[i] for token in x]
        after = [token for x, name in texts[i + 1 :] if name == names[i] for token in x]
        assert near == (before[-context:], after[:context])


def test_order_is_by_numbers_then_as_given() -> None:
    names = ["a", "a", "b", "a"]
    assert conversations_of(names) == [[0, 1, 3], [2]]
    assert conversations_of(names, [5.0, 1.0, 0.0, 1.0]) == [[2], [1, 3, 0]]


@pytest.mark.parametrize("nothing", ["", None, float("nan")])
def test_texts_without_a_conversation_stand_alone(nothing: object) -> None:
    assert conversations_of([nothing, 0, nothing, 0]) == [[0], [1, 3], [2]]


@given(
    st.lists(st.integers(1, 99), min_size=2, max_size=8),
    st.lists(st.integers(100, 199), max_size=8),
    st.lists(st.integers(200, 299), max_size=8),
    st.integers(8, 20),
)
def test_own_tokens_come_first_and_the_nearest_have_the_room(
    own: list[int], before: list[int], after: list[int], longest: int
) -> None:
    steps = with_context(own, Context(before, after), [3], longest)
    assert steps.dtype == np.int32
    assert len(steps) <= longest
    assert steps[: len(own)].tolist() == [[x, 0] for x in own]
    more = steps[len(own) :]
    assert (more[:, 1] == 1).all()
    words = [x for x in more[:, 0].tolist() if x != 3]
    shown = [x for x in words if x < 200], [x for x in words if x >= 200]
    assert shown[0] == before[len(before) - len(shown[0]) :]
    assert shown[1] == after[: len(shown[1])]
    half = max(0, longest - len(own) - 2) // 2
    assert (len(shown[0]), len(shown[1])) == (min(half, len(before)), min(half, len(after)))


def test_a_lone_text_is_itself() -> None:
    assert with_context([2, 5, 3], NOTHING, [3], 9).tolist() == [[2, 0], [5, 0], [3, 0]]


def test_without_own_tokens_there_is_no_context() -> None:
    assert with_context([], Context([7], [8]), [], 9).shape == (0, 2)


@pytest.mark.parametrize(
    ("template", "end"),
    [("[CLS] $A [SEP]", [3]), ("[CLS] $A", []), ("$A", []), ("[CLS] $A [SEP] [CLS]", [3])],
)
def test_parts_are_closed_as_the_tokenizer_closes_texts(
    template: str, end: list[int], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {"[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "we": 4, "so": 5}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = ContextTokenizer(tmp_path, 20, 3)
    (first, second) = tokenizer.read(["we", "so"], tokenizer.contexts(["we", "so"], [0, 0]))
    own = [2] * template.startswith("[CLS]") + [4] + end + [2] * template.endswith(" [CLS]")
    assert first[:, 0].tolist() == [*own, *end, 5, *end]
    assert second[-len(end) - 1 - len(end) :, 0].tolist() == [4, *end, *end]
