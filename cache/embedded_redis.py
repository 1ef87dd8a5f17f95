"""A Redis inside this process, for scripts: no server, no port, nothing kept.

What it lacks (it has no replication, no eviction and only some commands) does not matter here: the index is made
again from the manifests of the saved states, and what it holds is bounded by what engines hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["EmbeddedRedis"]


class EmbeddedRedis:
    """`ScriptRunner` in this process; usable from any event loop, also after another one has ended."""

    def __init__(self) -> None:
        from burner_redis import BurnerRedis

        self._redis: Any = BurnerRedis()
        self._digests: dict[str, str] = {}

    async def run(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:
        """See `ScriptRunner.run`."""
        digest = self._digests.get(script)
        if digest is None:
            digest = self._digests[script] = await self._redis.script_load(script)
        return await self._redis.evalsha(digest, len(keys), *keys, *args)

    async def close(self) -> None:
        """Lets go of what it holds."""
        await self._redis.aclose()
