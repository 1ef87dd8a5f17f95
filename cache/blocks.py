"""Prefix blocks: a prompt's tokens in runs of fixed size, each hashed together with all that stands before it.

Two prompts share their first n blocks exactly when the first n hashes agree, so a set of hashes answers "how
much of this prompt does that engine have". Source: design after vLLM's prefix caching (vllm/v1/core/
kv_cache_utils.py, hash of parent, tokens and extra keys); blake2b, because chains over attacker-chosen text
(a book is one) must not collide.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["DEFAULT_BLOCK_TOKENS", "PrefixBlock", "aligned_tokens", "prefix_blocks", "root_hash", "segment_hash"]

DEFAULT_BLOCK_TOKENS = 64
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class PrefixBlock:
    """A full block of a prompt."""

    hash: bytes
    """16 bytes; depends on every token up to and including this block, and on the root."""
    parent: bytes
    """The hash of the block before; the root's for the first."""
    n_tokens: int


def root_hash(*identity: str) -> bytes:
    """The hash that a chain starts from: everything besides tokens that the attention KV depends on.

    Model digest, tokenizer, chat template, KV type, adapter and salt, each as its own part: joining them into
    one string would let two different identities meet.
    """
    state = blake2b(digest_size=_DIGEST_BYTES)
    for part in identity:
        data = part.encode()
        state.update(struct.pack("<I", len(data)))
        state.update(data)
    return state.digest()


def prefix_blocks(tokens: Sequence[int], root: bytes, *, block_tokens: int = DEFAULT_BLOCK_TOKENS) -> list[PrefixBlock]:
    """The full blocks of `tokens`, in order; a rest that does not fill a block has none.

    Raises: ValueError when `block_tokens` is not positive, or a token is not a 32-bit number.
    """
    if block_tokens <= 0:
        raise ValueError(f"block_tokens has to be positive, not {block_tokens}")
    blocks: list[PrefixBlock] = []
    parent = root
    for start in range(0, len(tokens) - block_tokens + 1, block_tokens):
        try:
            data = struct.pack(f"<{block_tokens}I", *tokens[start : start + block_tokens])
        except struct.error as error:
            raise ValueError(f"tokens {start}..{start + block_tokens} are not 32-bit numbers") from error
        digest = blake2b(parent + data, digest_size=_DIGEST_BYTES).digest()
        blocks.append(PrefixBlock(digest, parent, block_tokens))
        parent = digest
    return blocks


def segment_hash(tokens: Sequence[int], root: bytes, *, block_tokens: int = DEFAULT_BLOCK_TOKENS) -> bytes:
    """The hash of all of `tokens`, a rest that fills no block included; the root for none.

    Equals the last block's where the tokens end with a block. Raises: as `prefix_blocks`.
    """
    blocks = prefix_blocks(tokens, root, block_tokens=block_tokens)
    parent = blocks[-1].hash if blocks else root
    rest = tokens[len(blocks) * block_tokens :]
    if not rest:
        return parent
    try:
        data = struct.pack(f"<{len(rest)}I", *rest)
    except struct.error as error:
        raise ValueError("the last tokens are not 32-bit numbers") from error
    return blake2b(parent + data, digest_size=_DIGEST_BYTES).digest()


def aligned_tokens(n_tokens: int, *, block_tokens: int = DEFAULT_BLOCK_TOKENS) -> int:
    """How many of a prefix's tokens lie in full blocks: the most that a block cache can give back."""
    return n_tokens - n_tokens % block_tokens
