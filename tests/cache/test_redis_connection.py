"""Connections to Redis: bad addresses and dead servers are told quickly, and as CacheError."""

from __future__ import annotations

import socket
import time

import pytest

from coa.cache.connection import connect, redis_version
from coa.errors import CacheError


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(CacheError, match="not an address"):
        connect("localhost:6379")


def test_a_dead_server_is_told_without_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    started = time.perf_counter()
    with pytest.raises(CacheError, match="Redis does not answer"):
        redis_version(f"redis://127.0.0.1:{port}/0", timeout_s=0.2)
    assert time.perf_counter() - started < 4


def test_a_server_that_never_answers_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.perf_counter()
        with pytest.raises(CacheError, match="Redis does not answer"):
            redis_version(f"redis://:secret@127.0.0.1:{port}/0", timeout_s=0.1)
    assert time.perf_counter() - started < 4
