"""What was said around a text: which tokens, how many, in which order."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from carat.surroundings import ALONE, Surrounding, conversations_of, in_conversation, surroundings

TEXTS = st.lists(st.tuples(st.lists(st.integers(1, 99), max_size=5), st.sampled_from("abc")), max_size=12)


@given(TEXTS, st.integers(1, 12))
def test_the_nearest_tokens_of_a_conversation(texts: list[tuple[list[int], str]], context: int) -> None:
    ids, names = [x for x, _ in texts], [name for _, name in texts]
    found = surroundings(ids, conversations_of(names), context)
    assert len(found) == len(texts)
    for i, near in enumerate(found):
        before = [token for x, name in texts[:i] if name == names[i] for token in x]
        after = [token for x, name in texts[i + 1 :] if name == names[i] for token in x]
        assert near == (before[-context:], after[:context])


def test_order_is_by_numbers_then_as_given() -> None:
    names = ["a", "a", "b", "a"]
    assert conversations_of(names) == [[0, 1, 3], [2]]
    assert conversations_of(names, [5.0, 1.0, 0.0, 1.0]) == [[1, 3, 0], [2]]


@given(
    st.lists(st.integers(1, 99), min_size=2, max_size=8),
    st.lists(st.integers(100, 199), max_size=8),
    st.lists(st.integers(200, 299), max_size=8),
    st.integers(8, 20),
)
def test_own_tokens_come_first_and_the_nearest_have_the_room(
    own: list[int], before: list[int], after: list[int], longest: int
) -> None:
    steps = in_conversation(own, Surrounding(before, after), [3], longest)
    assert steps.dtype == np.int32
    assert len(steps) <= longest
    assert steps[: len(own)].tolist() == [[x, 0] for x in own]
    more = steps[len(own) :]
    assert (more[:, 1] == 1).all()
    words = [x for x in more[:, 0].tolist() if x != 3]
    shown = [x for x in words if x < 200], [x for x in words if x >= 200]
    assert shown[0] == before[len(before) - len(shown[0]) :]
    assert shown[1] == after[: len(shown[1])]
    if len(own) + len(before) + len(after) + 2 <= longest and len(before) == len(after):
        assert (len(shown[0]), len(shown[1])) == (len(before), len(after))


def test_a_lone_text_is_itself() -> None:
    assert in_conversation([2, 5, 3], ALONE, [3], 9).tolist() == [[2, 0], [5, 0], [3, 0]]
