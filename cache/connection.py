"""Connections to Redis with the limits of the call path: nothing waits for a dead server.

redis-py's defaults retry ten times with back-off, 4.5 s a call against a server that is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coa.errors import CacheError

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

__all__ = ["connect", "connect_async", "redis_version"]

_TIMEOUT_S = 0.05


def connect(url: str, *, timeout_s: float = _TIMEOUT_S) -> Redis:
    """A client that gives up after `timeout_s` seconds, without retries. Raises: CacheError for a bad address."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        return Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise CacheError("COA_REDIS_URL is not an address.", hint="It looks like redis://host:6379/0.") from error


def connect_async(url: str, *, timeout_s: float = _TIMEOUT_S) -> AsyncRedis:
    """As `connect`, for the event loop in which it is used first."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    try:
        return Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise CacheError("COA_REDIS_URL is not an address.", hint="It looks like redis://host:6379/0.") from error


def redis_version(url: str, *, timeout_s: float) -> str:
    """The server's version. Raises: CacheError when it cannot be reached."""
    from redis.exceptions import RedisError

    client = connect(url, timeout_s=timeout_s)
    try:
        return str(client.info("server")["redis_version"])
    except (RedisError, OSError) as error:
        raise CacheError(
            f"Redis does not answer ({type(error).__name__}).", hint="Check COA_REDIS_URL; coa goes on without it."
        ) from error
    finally:
        client.close()
