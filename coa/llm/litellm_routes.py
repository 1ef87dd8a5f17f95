"""How a request reaches a deployment: straight where there is one, through litellm's Router where there are more."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Protocol

from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.litellm_requests import litellm_entry, own_timeout
from coa.llm.pacing import Admission

__all__ = ["DirectRoute", "Route", "RouterRoute", "route_for"]

Sleep = Callable[[float], Awaitable[None]]

# Of router_settings, those that mean nothing for a single deployment that nothing falls back from.
_MEANINGLESS_ALONE = frozenset(
    {
        "allowed_fails",
        "allowed_fails_policy",
        "cooldown_time",
        "disable_cooldowns",
        "num_retries",
        "max_fallbacks",
        "retry_after",
        "retry_policy",
        "routing_strategy",
        "routing_strategy_args",
        "timeout",
        "stream_timeout",
    }
)
_ROUTER_ONLY = frozenset({"weight", "order", "cooldown_time", "tags"})
# litellm tells how long a cooldown is, not how much of it is left.
_COOLDOWN_STEP_S = 1.0
_LONGEST_STEP_S = 5.0
_LONGEST_COOLDOWN_S = 600.0

_admission: ContextVar[Admission | None] = ContextVar("coa_admission", default=None)


class Route(Protocol):
    """Sends requests of one group."""

    def admitting(self, admission: Admission) -> AbstractContextManager[None]:
        """Around `send` and the reading of a stream: what falls back meanwhile goes through the admission too."""
        ...

    async def send(self, request: dict[str, Any], admission: Admission) -> Any:
        """litellm's response, or its stream."""
        ...

    def close(self) -> None:
        """Lets go of what is registered with litellm."""
        ...


def route_for(
    litellm: ModuleType,
    group: ModelGroup,
    other_groups: Sequence[ModelGroup],
    settings: Mapping[str, object],
    *,
    sleep: Sleep,
) -> Route:
    """The shortest way: the Router's choosing, counting and falling back costs 2 ms a call."""
    alone = len(group.deployments) == 1 and not other_groups and not settings.keys() - _MEANINGLESS_ALONE
    if alone:
        return DirectRoute(litellm, group)
    return RouterRoute(litellm, group, other_groups, settings, sleep=sleep)


class DirectRoute:
    """Calls to the only deployment of a group."""

    def __init__(self, litellm: ModuleType, group: ModelGroup) -> None:
        self._litellm = litellm
        self._deployment = group.deployments[0]
        entry = litellm_entry(self._deployment, group.name)
        info = entry["model_info"]
        params = {k: v for k, v in entry["litellm_params"].items() if k not in _ROUTER_ONLY}
        # As the Router marks its calls: litellm leaves retries to whoever made them, and callbacks know the group.
        self._metadata = {"model_group": group.name, "deployment": self._deployment.model, "model_info": info}
        self._params = {**params, "model_info": info}

    def admitting(self, admission: Admission) -> AbstractContextManager[None]:
        """See `Route.admitting`; another model's Router does not come in here."""
        return _admitting(None)

    async def send(self, request: dict[str, Any], admission: Admission) -> Any:
        """See `Route.send`."""
        stream = bool(request.get("stream"))
        await admission.admit(self._deployment.id, total_s=own_timeout(self._deployment, stream=stream))
        call = {**self._params, **request, "metadata": dict(self._metadata)}
        return await self._litellm.acompletion(**_with_body(call, admission))

    def close(self) -> None:
        """Nothing is registered."""


class RouterRoute:
    """Calls through a Router, which picks deployments, cools failing ones down and falls back to other groups."""

    def __init__(
        self,
        litellm: ModuleType,
        group: ModelGroup,
        other_groups: Sequence[ModelGroup],
        settings: Mapping[str, object],
        *,
        sleep: Sleep,
    ) -> None:
        settings = {**settings, "num_retries": 0}
        if len(group.deployments) == 1 and not other_groups:
            # Nowhere else to go: a cooled-down only deployment would turn a short 429 into "none available".
            settings.setdefault("disable_cooldowns", True)
        groups = (group, *other_groups)
        self._group = group.name
        self._falls_back = any("fallbacks" in key and settings[key] for key in settings)
        self._sleep = sleep
        entries = [litellm_entry(d, g.name) for g in groups for d in g.deployments]
        self._router = litellm.Router(model_list=entries, **settings)
        self._release = _hooked(litellm, {d.id: d for g in groups for d in g.deployments})

    def admitting(self, admission: Admission) -> AbstractContextManager[None]:
        """See `Route.admitting`."""
        return _admitting(admission)

    async def send(self, request: dict[str, Any], admission: Admission) -> Any:
        """See `Route.send`; while all deployments are cooling down it waits for one."""
        waited = 0.0
        while True:
            try:
                return await self._router.acompletion(model=self._group, **request)
            except ValueError as error:  # litellm's RouterRateLimitError, which has no better base
                cooldown_s = getattr(error, "cooldown_time", None)
                if not isinstance(cooldown_s, int | float) or self._falls_back:
                    raise  # with fallbacks there were calls: the next try is a retry
                if waited > min(1.5 * cooldown_s + 5.0, _LONGEST_COOLDOWN_S):
                    raise
            step = min(_COOLDOWN_STEP_S + waited / 10, _LONGEST_STEP_S) * random.uniform(0.5, 1.0)
            waited += step
            await self._sleep(step)

    def close(self) -> None:
        """Takes the Router's callbacks, and ours, out of litellm's lists."""
        self._release()
        discard = getattr(self._router, "discard", None)
        if discard is not None:
            discard()


@contextlib.contextmanager
def _admitting(admission: Admission | None) -> Iterator[None]:
    token = _admission.set(admission)
    try:
        yield
    finally:
        _admission.reset(token)


_known: dict[str, list[Deployment]] = {}
_hooks: list[Any] = []


def _hooked(litellm: ModuleType, deployments: Mapping[str, Deployment]) -> Callable[[], None]:
    """Lets the Router's choices go through our admissions as long as a route is open; returns what ends that."""
    if not _hooks:
        hook = _hook_class(litellm)()
        _hooks.append(hook)
        litellm.callbacks.append(hook)
    released = False
    for deployment in deployments.values():
        _known.setdefault(deployment.id, []).append(deployment)

    def release() -> None:
        nonlocal released
        if released:
            return
        released = True
        for deployment in deployments.values():
            _known[deployment.id].remove(deployment)
            if not _known[deployment.id]:
                del _known[deployment.id]
        if not _known:
            hook = _hooks.pop()
            for name in ("callbacks", "success_callback", "failure_callback", "input_callback"):
                for listed in (getattr(litellm, name, None), getattr(litellm, f"_async_{name}", None)):
                    while isinstance(listed, list) and hook in listed:
                        listed.remove(hook)

    return release


def _hook_class(litellm: ModuleType) -> type[Any]:
    base = litellm.integrations.custom_logger.CustomLogger

    class AdmissionHook(base):  # type: ignore[misc, valid-type] # litellm is imported late
        """Where the Router asks which deployments may be chosen, and says which one was."""

        async def async_filter_deployments(
            self, model: str, healthy_deployments: Any, messages: Any, request_kwargs: Any = None, **_: Any
        ) -> Any:
            admission = _admission.get()
            if admission is None or not isinstance(healthy_deployments, list):
                return healthy_deployments
            in_order = _lowest_order(healthy_deployments, request_kwargs, admission)
            kept = set(await admission.preferred([str(d["model_info"]["id"]) for d in in_order]))
            return [d for d in in_order if str(d["model_info"]["id"]) in kept] or healthy_deployments

        async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> Any:
            admission = _admission.get()
            chosen = str((kwargs.get("model_info") or {}).get("id"))
            if admission is None or not admission.ours or chosen not in _known:
                return None
            stream = bool(kwargs.get("stream"))
            await admission.admit(chosen, total_s=own_timeout(_known[chosen][-1], stream=stream))
            return _with_body(kwargs, admission)

    return AdmissionHook


def _with_body(call: dict[str, Any], admission: Admission) -> dict[str, Any]:
    """The call with what the prefix cache has the engine told."""
    body = admission.prepared.body
    return {**call, "extra_body": {**(call.get("extra_body") or {}), **body}} if body else call


def _lowest_order(deployments: list[Any], request_kwargs: Any, admission: Admission) -> list[Any]:
    """Those of the lowest `order` among the ones that have not failed this call; litellm's own rule, applied early."""
    if (request_kwargs or {}).get("_target_order") is not None:
        return deployments
    untried = [d for d in deployments if str(d["model_info"]["id"]) not in admission.avoid] or deployments
    orders = [o for d in untried if isinstance(o := d["litellm_params"].get("order"), int)]
    return [d for d in untried if not orders or d["litellm_params"].get("order") == min(orders)] or untried
