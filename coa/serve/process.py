"""The service as a process: a socket to listen on, runs that are drained when it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from coa.errors import ConfigError

__all__ = ["bound_socket", "run_app"]

_BACKLOG = 512


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`; port 0 is a free one. Raises: ConfigError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({error.strerror}).", hint="Give another --port; 0 takes a free one."
        ) from error
    return bound


def run_app(app: FastAPI, sock: socket.socket, *, verbose: bool, on_ready: Callable[[], None]) -> None:
    """Serves until SIGINT or SIGTERM; runs under way are drained before their callers are let go.

    `on_ready` is called when calls are answered. Raises: what opening the models raises.
    """
    # The lifespan is entered here: what goes wrong in it would come out of uvicorn as a log line.
    config = uvicorn.Config(
        app, lifespan="off", log_level="info" if verbose else "warning", access_log=verbose, backlog=_BACKLOG
    )

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await _DrainingServer(config, app, on_ready).serve(sockets=[sock])

    asyncio.run(serve())


class _DrainingServer(uvicorn.Server):
    """Stops runs first, then waits for connections: the other way round it would wait for whole books."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.state.service.active.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As in uvicorn, which raises them again at the end: here to end was all that was asked for."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
