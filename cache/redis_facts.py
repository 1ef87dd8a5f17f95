"""What a Redis server says of itself, as far as a cache in it depends on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from coa.cache.connection import connect
from coa.errors import CacheError

__all__ = ["RedisFacts", "redis_facts"]

_PINGS = 7


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """Settings and speed of a server."""

    version: str
    max_bytes: int
    """0: no bound but the machine's memory."""
    used_bytes: int
    policy: str
    """What goes when memory is full; "noeviction": writes fail."""
    latency_s: float
    """Of a round trip; the median of several."""


def redis_facts(url: str, *, timeout_s: float) -> RedisFacts:
    """Asks the server; by INFO alone, which managed servers allow too. Raises: CacheError when it does not answer."""
    from redis.exceptions import RedisError

    client = connect(url, timeout_s=timeout_s)
    try:
        info = {**client.info("server"), **client.info("memory")}
        times = []
        for _ in range(_PINGS):
            started = time.perf_counter()
            client.ping()
            times.append(time.perf_counter() - started)
    except (RedisError, OSError) as error:
        raise CacheError(
            f"Redis does not answer ({type(error).__name__}).", hint="Check COA_REDIS_URL; coa goes on without it."
        ) from error
    finally:
        client.close()
    return RedisFacts(
        version=str(info.get("redis_version", "unknown")),
        max_bytes=int(info.get("maxmemory", 0)),
        used_bytes=int(info.get("used_memory", 0)),
        policy=str(info.get("maxmemory_policy", "unknown")),
        latency_s=median(times),
    )
