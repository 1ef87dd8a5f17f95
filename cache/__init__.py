"""The prefix cache: what of a prompt an engine need not compute again.

This release has the arithmetic of blocks, which `--dry-run` uses to say how much of a run is cacheable.
"""

from coa.cache.blocks import DEFAULT_BLOCK_TOKENS, PrefixBlock, aligned_tokens, prefix_blocks

__all__ = ["DEFAULT_BLOCK_TOKENS", "PrefixBlock", "aligned_tokens", "prefix_blocks"]
