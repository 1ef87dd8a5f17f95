"""A batch worked on by a few actors of a Ray cluster, which lease documents from the shared ledger.

The driver only watches. Whatever dies, nothing is lost but the chunk in hand: a dead actor's leases are taken back
and another takes its place; when the driver dies, or the cluster's head, its actors end with it, and any worker of
the batch (`coa batch resume`, `coa batch worker`) goes on, with Ray or without.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from coa.api import StopSignal
from coa.batch.driving import Driven, Patience
from coa.batch.ledger import Ledger
from coa.batch.opening import is_shared
from coa.batch.ray_actor import ActorWork
from coa.batch.ray_cluster import ActorLost, Cluster, Placed, RayFailed, joined_cluster
from coa.batch.record import BatchRecord
from coa.config import Settings
from coa.errors import ConfigError

__all__ = ["DEFAULT_ACTORS", "drive_on_ray", "watch_actors"]

DEFAULT_ACTORS = 2
_log = logging.getLogger(__name__)
_PLACED_WITHIN_S = 60.0
_MOST_LOST = 10
"""Actors in a row, with nothing done by any of them, after which the cluster or the documents are at fault."""
_PAUSE_S = 1.0


async def drive_on_ray(
    record: BatchRecord,
    present: Settings,
    ledger: Ledger,
    *,
    stop: StopSignal,
    on_stage: Callable[[str], None] = lambda _: None,
    patience: Patience | None = None,
) -> Driven:
    """As `drive`, with actors of a cluster in place of this process.

    `record.extra` may have "actors" (their number) and "ray_address" (as in `joined_cluster`). Documents and calls
    at once are those of the batch, shared out evenly. Raises: ConfigError for a ledger that is a file, RayFailed.
    """
    if not is_shared(record):
        raise ConfigError(
            "--engine ray needs a ledger in Redis, which its actors share.", hint="Set COA_REDIS_URL and start again."
        )
    address = record.extra.get("ray_address")
    on_stage("joining the Ray cluster")
    with joined_cluster(str(address) if address else None) as cluster:
        on_stage("")
        n_actors = int(record.extra.get("actors") or DEFAULT_ACTORS)
        return await watch_actors(cluster, record, present, ledger, n_actors=n_actors, stop=stop, patience=patience)


async def watch_actors(
    cluster: Cluster,
    record: BatchRecord,
    present: Settings,
    ledger: Ledger,
    *,
    n_actors: int,
    stop: StopSignal,
    patience: Patience | None = None,
) -> Driven:
    """How the batch ended, worked on by `n_actors` at any time. Raises: RayFailed where they die again and again."""
    settings = record.settings_of(record.config, present)

    def work(number: int) -> ActorWork:
        return ActorWork(
            batch_id=record.batch_id,
            settings=present.model_dump(mode="json"),
            owner=f"ray-{secrets.token_hex(4)}-{number}",
            jobs=-(-record.options.jobs // n_actors),
            max_parallel_calls=-(-settings.max_parallel_calls // n_actors),
            patience=patience or Patience(),
        )

    watch = _Watch(cluster, ledger, work, n_actors, stop)
    try:
        return await watch.run()
    finally:
        watch.kill_all()


@dataclass
class _Held:
    """An actor that works."""

    owner: str
    actor: Placed
    running: asyncio.Task[Driven]


class _Watch:
    def __init__(
        self, cluster: Cluster, ledger: Ledger, work: Callable[[int], ActorWork], n_actors: int, stop: StopSignal
    ) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._work = work
        self._n_actors = n_actors
        self._held: list[_Held] = []
        self._n_placed = 0
        self._ending: Driven | None = None
        self._n_lost = 0
        self._ended_before = -1
        self._loop = asyncio.get_running_loop()
        self._telling: set[asyncio.Task[None]] = set()
        stop.listen(self._stop_asked)

    def _stop_asked(self, reason: str) -> None:
        """On any thread, or in a signal handler."""
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._end, Driven("stopped"))

    async def run(self) -> Driven:
        for _ in range(self._n_actors):
            self._place()
        # Where all is done nobody is waited for: an actor may never have been placed.
        while self._held and self._ending != Driven("finished"):
            ended, _ = await asyncio.wait([held.running for held in self._held], return_when=asyncio.FIRST_COMPLETED)
            for held in [held for held in self._held if held.running in ended]:
                self._held.remove(held)
                await self._take(held)
        return self._ending or Driven("finished")

    def kill_all(self) -> None:
        for held in self._held:
            held.running.cancel()
            held.actor.kill()

    def _place(self) -> None:
        work = self._work(self._n_placed)
        self._n_placed += 1
        actor = self._cluster.place(work)
        self._held.append(_Held(work.owner, actor, asyncio.create_task(self._run(actor))))

    async def _run(self, actor: Placed) -> Driven:
        try:
            async with asyncio.timeout(_PLACED_WITHIN_S):
                place = await actor.place()
        except TimeoutError:
            _log.warning("the Ray cluster has had no room for an actor for %g s; waiting.", _PLACED_WITHIN_S)
            place = await actor.place()
        _log.info("an actor works on %s, process %d.", place.host, place.pid)
        return await actor.run()

    async def _take(self, held: _Held) -> None:
        """Sees to an actor that has ended or is gone."""
        try:
            driven = held.running.result()
        except ActorLost as error:
            held.actor.kill()
            await self._replace(held, error)
            return
        held.actor.kill()  # its process is of no more use
        if driven.ending != "stopped":
            self._end(driven)

    async def _replace(self, held: _Held, error: ActorLost) -> None:
        n = await self._ledger.expire(owner=held.owner)
        _log.warning("an actor is gone (%s); %d documents of it are taken back.", error, n)
        status = await self._ledger.status()
        n_ended = sum(status.counts.values()) - status.open
        self._n_lost = 1 if n_ended > self._ended_before else self._n_lost + 1
        self._ended_before = n_ended
        if self._n_lost >= _MOST_LOST:
            raise RayFailed(
                f"{self._n_lost} actors in a row died with nothing done ({error}).",
                hint="The Ray logs of their nodes tell why; go on with `coa batch resume`.",
            )
        if self._ending is None and status.open:
            await asyncio.sleep(_PAUSE_S * (self._n_lost - 1))
            self._place()

    def _end(self, driven: Driven) -> None:
        """No actor is placed any more; where something is open, those that work are asked to stop. The first reason
        counts."""
        if self._ending is not None:
            return
        self._ending = driven
        if driven.ending != "finished":
            for held in self._held:
                task = self._loop.create_task(_told(held.actor, driven.ending))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)


async def _told(actor: Placed, reason: str) -> None:
    with contextlib.suppress(ActorLost, RayFailed):
        await actor.stop(reason)
