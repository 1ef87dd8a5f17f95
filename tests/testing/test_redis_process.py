"""RedisProcess: a real server that answers, dies, falls silent and comes back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coa.cache.connection import connect
from coa.testing.redis_process import RedisProcess, redis_servers

SERVERS = redis_servers()

pytestmark = pytest.mark.skipif(not SERVERS, reason="no redis-server on this machine")


@pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS.keys())
@pytest.mark.parametrize("tcp", [False, True], ids=["socket", "tcp"])
def test_a_server_answers_at_its_address_and_is_gone_afterwards(program: Path, *, tcp: bool) -> None:
    with RedisProcess(program, tcp=tcp) as redis:
        client = connect(redis.url, timeout_s=5.0)
        client.set("a", "1")
        assert client.get("a") == b"1"
        assert client.info("server")["redis_version"] == redis.version
        client.close()
        pid = redis.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_killed_server_can_be_started_again_at_the_same_address_and_is_empty() -> None:
    from redis.exceptions import ConnectionError as Gone

    with RedisProcess() as redis:
        client = connect(redis.url, timeout_s=5.0)
        client.set("a", "1")
        redis.kill()
        with pytest.raises(Gone):
            client.get("a")
        with pytest.raises(RuntimeError, match="does not run"):
            _ = redis.pid
        redis.start()
        assert client.get("a") is None
        client.close()


def test_a_paused_server_is_silent_until_it_goes_on() -> None:
    from redis.exceptions import TimeoutError as Silent

    with RedisProcess() as redis:
        client = connect(redis.url)
        client.set("a", "1")
        redis.pause()
        with pytest.raises(Silent):
            client.get("a")
        redis.go_on()
        patient = connect(redis.url, timeout_s=5.0)
        assert patient.get("a") == b"1"
        for each in (client, patient):
            each.close()
