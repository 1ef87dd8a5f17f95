"""How a window is divided, and what is said when it cannot be."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coa.errors import LimitsError
from coa.limits import fit_limits


@given(
    window=st.integers(1, 200_000),
    template=st.integers(0, 2000),
    question=st.integers(1, 1000),
    chunk=st.none() | st.integers(1, 20_000),
    notes=st.none() | st.integers(1, 3000),
    answer=st.none() | st.integers(1, 3000),
)
def test_limits_either_fit_the_window_or_are_refused(
    window: int, template: int, question: int, chunk: int | None, *, notes: int | None, answer: int | None
) -> None:
    try:
        limits = fit_limits(
            window=window,
            template_tokens=template,
            question_tokens=question,
            chunk_tokens=chunk,
            note_tokens=notes,
            answer_tokens=answer,
        )
    except LimitsError:
        assume(False)
    assert limits.worker_tokens <= window
    assert limits.manager_tokens <= window
    assert 128 <= limits.chunk_tokens <= (chunk or 8192)
    assert limits.note_tokens == notes or notes is None
    assert limits.answer_tokens == answer or answer is None


def test_a_window_of_8192_is_filled() -> None:
    limits = fit_limits(window=8192, template_tokens=500, question_tokens=256)
    assert limits.worker_tokens == 8192
    assert limits.note_tokens == 819


def test_a_huge_window_does_not_make_huge_chunks() -> None:
    assert fit_limits(window=1_000_000, template_tokens=500, question_tokens=256).chunk_tokens == 8192


def test_chunks_do_not_depend_on_the_question() -> None:
    first = fit_limits(window=4096, template_tokens=500, question_tokens=256)
    assert first == fit_limits(window=4096, template_tokens=500, question_tokens=256)


def test_a_window_that_is_too_small_is_told_plainly_with_what_is_needed() -> None:
    with pytest.raises(LimitsError) as caught:
        fit_limits(window=256, template_tokens=262, question_tokens=256)
    assert str(caught.value) == (
        "a window of 256 tokens is too small: notes in 96 + notes out 96 + question 256 + template 262 + the smallest "
        "chunk 128 = 838 tokens. Raise --window, lower --note-tokens, or use a model with a larger window."
    )
    assert fit_limits(window=838, template_tokens=262, question_tokens=256).chunk_tokens == 128


@pytest.mark.parametrize("chunk", [20, 3000])
def test_a_chunk_size_that_does_not_fit_is_shown_in_its_sum(chunk: int) -> None:
    with pytest.raises(LimitsError) as caught:
        fit_limits(window=2048, template_tokens=300, question_tokens=256, chunk_tokens=chunk, note_tokens=200)
    total = chunk + 200 + 200 + 256 + 300
    assert f"chunk {chunk} + notes in 200 + notes out 200 + question 256 + template 300 = {total}" in str(caught.value)
    assert "the window has 2048" in str(caught.value)
    assert ("at least 128" in str(caught.value)) == (chunk < 128)


def test_an_answer_that_does_not_fit_is_the_managers_sum() -> None:
    with pytest.raises(
        LimitsError, match=r"manager's prompt .* notes 200 \+ question 256 \+ answer 1500 \+ template 300"
    ):
        fit_limits(
            window=2048, template_tokens=300, question_tokens=256, chunk_tokens=500, note_tokens=200, answer_tokens=1500
        )
