"""Prefix blocks: equal hashes exactly where the tokens before are equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.cache import aligned_tokens, prefix_blocks
from coa.cache.blocks import root_hash

ROOT = root_hash("model", "tokenizer")
TOKENS = st.lists(st.integers(0, 3), max_size=40)


@given(TOKENS, TOKENS, st.integers(1, 7))
def test_two_prompts_share_as_many_blocks_as_whole_blocks_of_equal_tokens(
    a: list[int], b: list[int], size: int
) -> None:
    ours = [block.hash for block in prefix_blocks(a, ROOT, block_tokens=size)]
    theirs = [block.hash for block in prefix_blocks(b, ROOT, block_tokens=size)]
    n_equal = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    n_shared = next(
        (i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y), min(len(ours), len(theirs))
    )
    assert n_shared == n_equal // size
    assert not set(ours[n_shared:]) & set(theirs), "after the first difference nothing is equal again"


@given(TOKENS, st.integers(1, 7))
def test_blocks_are_chained_and_full(tokens: list[int], size: int) -> None:
    blocks = prefix_blocks(tokens, ROOT, block_tokens=size)
    assert sum(block.n_tokens for block in blocks) == aligned_tokens(len(tokens), block_tokens=size)
    assert [block.parent for block in blocks] == [ROOT, *(block.hash for block in blocks)][: len(blocks)]


def test_another_identity_is_another_chain_however_its_parts_are_cut() -> None:
    roots = {root_hash("ab", "c"), root_hash("a", "bc"), root_hash("abc"), root_hash("abc", ""), root_hash()}
    assert len(roots) == 5
    hashes = {prefix_blocks([1, 2], root, block_tokens=2)[0].hash for root in roots}
    assert len(hashes) == 5


@pytest.mark.parametrize(("tokens", "size"), [([1], 0), ([1], -1), ([-1, 1], 2), ([2**32], 1)])
def test_impossible_tokens_and_sizes_are_refused(tokens: list[int], size: int) -> None:
    with pytest.raises(ValueError, match=r"positive|32-bit"):
        prefix_blocks(tokens, ROOT, block_tokens=size)
