"""Requests to an engine's own endpoints, apart from the calls that go through litellm."""

from __future__ import annotations

from typing import Any

import httpx

from coa.errors import CacheError
from coa.llm.deployments import Deployment
from coa.llm.litellm_clients import on_loopback

__all__ = ["EngineHttp", "gauge"]

_TIMEOUT = httpx.Timeout(10.0, connect=2.0)
# A long prefix on a slow machine takes minutes; calls have time limits of their own, which cancel this.
_COMPUTING = httpx.Timeout(None, connect=2.0)


class EngineHttp:
    """A client of one deployment; whatever goes wrong is a `CacheError` that names the endpoint and not the text."""

    def __init__(
        self, deployment: Deployment, *, verify: bool | str, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        """`verify` and `transport` as httpx takes them."""
        root = deployment.root_url or ""
        self._name = deployment.id
        self._client = httpx.AsyncClient(
            base_url=root,
            headers={"Authorization": f"Bearer {deployment.api_key}"} if deployment.api_key else {},
            timeout=_TIMEOUT,
            verify=False if root.startswith("http:") else verify,  # loading certificates takes a tenth of a second
            trust_env=not on_loopback(root),
            transport=transport,
        )

    async def call(self, method: str, path: str, body: object = None, *, computes: bool = False) -> dict[str, Any]:
        """The reply's JSON object. What `computes` a prompt may take as long as it likes."""
        response = await self._sent(method, path, body, _COMPUTING if computes else _TIMEOUT)
        try:
            answer: Any = response.json()
        except ValueError as error:
            raise self.error(path, f"HTTP {response.status_code}, not JSON") from error
        if response.is_error or not isinstance(answer, dict):
            raise self.error(path, f"HTTP {response.status_code}")
        return answer

    async def maybe(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        """As `call`; None where the server has no such endpoint, or does not take the request."""
        response = await self._sent(method, path, body, _TIMEOUT)
        try:
            answer: Any = response.json() if response.is_success else None
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None

    async def text(self, path: str) -> str:
        """The reply's text; empty where the server has no such endpoint."""
        response = await self._sent("GET", path, None, _TIMEOUT)
        return response.text if response.is_success else ""

    def error(self, path: str, what: str) -> CacheError:
        """What there is to raise."""
        return CacheError(f"{self._name} did not do {path}: {what}.")

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _sent(self, method: str, path: str, body: object, limits: httpx.Timeout) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body, timeout=limits)
        except httpx.HTTPError as error:
            raise self.error(path, type(error).__name__) from error


def gauge(metrics: str, *names: str) -> tuple[str, dict[str, str]] | None:
    """The value, as it is written, and the labels of the first of `names` in a Prometheus text; None for none."""
    for name in names:
        for line in metrics.splitlines():
            if not line.startswith(name) or line[len(name) : len(name) + 1] not in ("{", " "):
                continue
            told, _, value = line.rpartition(" ")
            labels = told[len(name) :].strip("{}")
            pairs = (pair.partition("=") for pair in labels.split('",'))
            return value, {key.strip(): text.strip('"') for key, _, text in pairs if key}
    return None
