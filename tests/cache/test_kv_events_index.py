"""What an engine's events say of our own chain of hashes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.cache.blocks import prefix_blocks, root_hash
from coa.cache.kv_blocks import EngineBlocks, HeldChange
from coa.cache.kv_events import KvRemoved, KvReset, KvStored, decode_batch
from coa.errors import CacheError
from tests.cache.kv_engine import PoolEngine, Shape

ROOT = root_hash("test")


def _ours(tokens: Sequence[int], block_tokens: int = 4) -> list[bytes]:
    return [block.hash for block in prefix_blocks(tokens, ROOT, block_tokens=block_tokens)]


def _blocks(block_tokens: int = 4, adapter: str | None = None) -> EngineBlocks:
    return EngineBlocks(ROOT, block_tokens=block_tokens, adapter=adapter)


def _stored(hashes: Sequence[int], tokens: Sequence[int], parent: int | None = None, *, size: int = 2, **more: object):  # type: ignore[no-untyped-def] # as KvStored takes it
    return KvStored(tuple(hashes), parent, tuple(tokens), size, **more)  # type: ignore[arg-type]


# A document is a number; its tokens are its own from the start, and texts of a family begin alike.
_TEXTS = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 40))
_STEPS = st.one_of(
    st.tuples(st.just("run"), _TEXTS, st.integers(1, 2)),
    st.tuples(st.just("evict"), st.integers(0, 100)),
    st.tuples(st.just("reset")),
    st.tuples(st.just("step")),
)


def _text(family: int, member: int, n_tokens: int) -> list[int]:
    shared = n_tokens // 2
    return [family * 1000 + i for i in range(shared)] + [member * 100_000 + i for i in range(n_tokens - shared)]


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(_STEPS, max_size=30),
    engine_block=st.sampled_from([1, 2, 3, 4, 8, 12]),
    our_block=st.sampled_from([1, 4, 6]),
    n_blocks=st.integers(1, 30),
    shape=st.sampled_from(["arrays", "maps", "array of maps"]),
    bytes_hashes=st.booleans(),
)
def test_the_index_holds_what_the_engine_would_find(
    steps: list[tuple[object, ...]],
    *,
    engine_block: int,
    our_block: int,
    n_blocks: int,
    shape: Shape,
    bytes_hashes: bool,
) -> None:
    engine = PoolEngine(engine_block, n_blocks, shape, bytes_hashes)
    blocks = _blocks(our_block)
    index: set[bytes] = set()
    texts: list[list[int]] = []
    for step in [*steps, ("step",)]:
        match step:
            case ("run", (int(family), int(member), int(n_tokens)), int(twins)):
                texts.append(_text(family, member, n_tokens))
                engine.run(texts[-1], twins=twins)
            case ("evict", int(which)) if engine.pool:
                engine.evict(list(engine.pool)[which % len(engine.pool)])
            case ("reset",):
                engine.reset()
            case _:
                message = engine.step()
                if message is None:
                    continue
                blocks.apply(decode_batch(message[1]).events)
                change = blocks.take()
                index = (set() if change.cleared else index - set(change.dropped)) | set(change.held)
                truth = {h for text in texts for h in _ours(text, our_block)[: engine.cached(text) // our_block]}
                assert index == truth == blocks.held


def test_a_block_that_comes_back_brings_those_behind_it() -> None:
    blocks = _blocks()
    blocks.apply([_stored([10, 11, 12, 13], range(8))])
    assert blocks.take().held == tuple(_ours(range(8)))
    blocks.apply([KvRemoved((11,))])
    assert set(blocks.take().dropped) == set(_ours(range(8)))
    blocks.apply([_stored([11], [2, 3], 10)])
    assert blocks.take().held == tuple(_ours(range(8)))
    assert len(blocks) == 2


def test_a_copy_that_is_left_still_counts() -> None:
    blocks = _blocks()
    twice = _stored([10, 11], range(4))
    blocks.apply([twice, twice, KvRemoved((10,)), KvRemoved((11,))])
    assert blocks.held == set(_ours(range(4)))
    blocks.apply([KvRemoved((11,))])
    assert not blocks.held


def test_what_moved_to_another_memory_is_still_there() -> None:
    blocks = _blocks()
    blocks.apply([_stored([10, 11], range(4), medium="GPU"), _stored([10, 11], range(4), medium="CPU")])
    blocks.apply([KvRemoved((10, 11), "GPU")])
    assert blocks.held == set(_ours(range(4)))
    blocks.apply([KvRemoved((11,), "CPU")])
    assert not blocks.held


def test_blocks_whose_beginning_is_unknown_count_when_it_comes() -> None:
    blocks = _blocks()
    blocks.apply([_stored([12, 13], [4, 5, 6, 7], 11), KvRemoved((99,))])
    assert not blocks.take()
    blocks.apply([_stored([10, 11], range(4))])
    assert blocks.take().held == tuple(_ours(range(8)))


def test_blocks_of_which_nothing_is_left_are_forgotten() -> None:
    blocks = _blocks()
    for n in range(50):
        base = 100 * n
        blocks.apply([_stored([base, base + 1], range(base, base + 4)), _stored([base + 7], [1, 2], base + 6)])
        blocks.apply([KvRemoved((base, base + 1, base + 7))])
    assert not blocks._blocks
    assert not blocks._holders


def test_a_reset_is_told_once_and_what_came_after_it() -> None:
    blocks = _blocks()
    blocks.apply([_stored([10, 11], range(4)), KvReset(), _stored([20, 21], range(10, 14))])
    assert blocks.take() == HeldChange(tuple(_ours(range(10, 14))), (), cleared=True)
    assert blocks.take() == HeldChange()


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (_stored([10, 11], range(4)), True),
        (_stored([10, 11], range(4), adapter="poet"), False),
        (_stored([10, 11], range(4), keyed=(True, False)), False),
        (_stored([10, 11], range(4), partial=True), False),
        (_stored([10, 11], [1, 2, 3, 2**40]), False),
    ],
    ids=["plain", "adapter", "salted", "window", "image"],
)
def test_blocks_of_another_identity_are_none_of_ours(event: KvStored, *, counts: bool) -> None:
    blocks = _blocks()
    blocks.apply([event, _stored([12, 13], range(4, 8), 11, adapter=event.adapter, partial=event.partial)])
    assert bool(blocks.held) == counts


def test_an_adapter_of_our_own_is_followed() -> None:
    blocks = _blocks(adapter="poet")
    blocks.apply([_stored([10, 11], range(4), adapter="poet"), _stored([20, 21], range(10, 14))])
    assert blocks.held == set(_ours(range(4)))


def test_layers_of_a_second_group_change_nothing() -> None:
    blocks = _blocks()
    blocks.apply([_stored([10, 11], range(4)), _stored([10, 11], range(4), group=1), KvRemoved((11,), None, 1)])
    assert blocks.held == set(_ours(range(4)))
    blocks.apply([KvRemoved((11,), None, 0)])
    assert not blocks.held


def test_hashes_that_do_not_tell_prefixes_apart_are_refused() -> None:
    """Older releases of SGLang hash a page's own tokens alone."""
    blocks = _blocks()
    blocks.apply([_stored([10, 11], range(4))])
    with pytest.raises(CacheError, match="do not tell prefixes apart"):
        blocks.apply([_stored([20, 11], [8, 9, 2, 3])])


def test_a_long_prompt_takes_no_stack() -> None:
    blocks = _blocks()
    n = 20_000
    blocks.apply([_stored(range(n), range(2 * n))])
    assert len(blocks) == n // 2
    blocks.apply([KvRemoved((0,))])
    assert len(blocks) == 0
