"""The models of a run: one for each name that the settings give, and which of them plays which role.

litellm takes seconds to import and an engine a moment to load its model, so both begin at once, in threads,
and a chat model is put together when the first call needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from coa.config import Settings
from coa.errors import ConfigError
from coa.limits import ReadingProfile
from coa.llm.budget import Prices
from coa.llm.chat import ChatModel
from coa.llm.deployments import ModelGroup
from coa.llm.embedded import EmbeddedEngine
from coa.llm.litellm_model import LitellmModel, load_litellm
from coa.llm.litellm_settings import CallSettings, SharedState, call_settings, check_router_settings
from coa.llm.opening import Engines, OpenModel, open_model
from coa.llm.prefixes import PrefixCache
from coa.llm.prices import prices_of
from coa.llm.rates import RateLimiter
from coa.llm.response_store import ResponseStore
from coa.llm.token_counters import close_counter
from coa.llm.wrapping import wrapped
from coa.tokens import TokenCounter

__all__ = ["Gateway", "MakePrefixCache", "models_named", "open_gateway"]

OnStage = Callable[[str], None]
MakePrefixCache = Callable[[Sequence[OpenModel]], PrefixCache | None]
"""A prefix cache for models that are open; None where none of them has a use for it."""


class Gateway:
    """Models that are ready to be used, and what is known about them.

    What is asked of the gateway as a whole holds for every role: the window is the smallest, costs are the
    dearest; tokens are counted as the worker's model counts them, and `group` is the group of `settings.model`.
    """

    def __init__(
        self,
        settings: Settings,
        models: Mapping[str, OpenModel],
        *,
        calls: CallSettings | None = None,
        engines: Engines | None = None,
        limiter: RateLimiter | None = None,
        response_store: ResponseStore | None = None,
        make_prefix_cache: MakePrefixCache | None = None,
    ) -> None:
        """`models` are those that `models_named` lists, by the names that the settings give; see `open_gateway`."""
        self.settings = settings
        self.models = dict(models)
        self.calls = calls or call_settings(settings)
        self.limiter = limiter
        self.response_store = response_store
        """Where replies are kept; None takes a file in coa's folder. To be set before the first chat model is made."""
        self.prefix_cache = None if make_prefix_cache is None else make_prefix_cache(list(models.values()))
        self._told: dict[str, None] = {}
        self._main, self._roles = models_named(settings)
        self._engines = engines or Engines()
        self._litellm: asyncio.Task[ModuleType] | None = None
        self._shared: SharedState | None = None
        self._made: dict[str, tuple[LitellmModel, ChatModel]] = {}

    @property
    def group(self) -> ModelGroup:
        """The group of `settings.model`."""
        return self.models[self._main].group

    @property
    def counter(self) -> TokenCounter:
        """Of the model that reads."""
        return self.role("worker").counter

    @property
    def window(self) -> int:
        """The smallest among the models, in tokens."""
        return min(model.window for model in self.models.values())

    @property
    def profile(self) -> ReadingProfile:
        """Of the model that reads; see `role_profile` for the others."""
        return self.role_profile("worker")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the models, once each."""
        found = [w for model in self.models.values() for w in model.warnings]
        return tuple(dict.fromkeys([*found, *self.calls.warnings, *self._told]))

    def warn(self, message: str) -> None:
        """Adds to `warnings` what came up during calls."""
        self._told[message] = None

    @property
    def chunk_tokens(self) -> int | None:
        """The catalogue's advice for the model that reads."""
        return self.role("worker").chunk_tokens

    @property
    def long_chunk_tokens(self) -> int | None:
        """As `chunk_tokens`, for notes that the model writes on whole chunks."""
        worker = self.role("worker")
        return worker.long_chunk_tokens or worker.chunk_tokens

    @property
    def note_tokens(self) -> int | None:
        """As `chunk_tokens`."""
        return self.role("worker").note_tokens

    @property
    def answer_tokens(self) -> int | None:
        """The catalogue's advice for the model that answers."""
        return self.role("manager").answer_tokens

    @property
    def engine(self) -> EmbeddedEngine | None:
        """The first engine that was started in this process for the gateway."""
        return self._engines.first

    def role(self, role: str) -> OpenModel:
        """What is known of the model that plays `role`; the one of `settings.model` where the role is not named."""
        return self.models[self._roles.get(role, self._main)]

    def role_profile(self, role: str) -> ReadingProfile:
        """How much can be asked of the model that plays `role`."""
        return self.role(role).profile

    def named(self, model_name: str) -> OpenModel | None:
        """What is known of the model whose `ChatModel.name` that is."""
        return next((m for m in self.models.values() if m.group.name == model_name), None)

    async def chat_model(self) -> ChatModel:
        """The chat model of `settings.model`; waits for litellm's import the first time."""
        return await self._chat_model(self._main)

    async def role_model(self, role: str) -> ChatModel:
        """The chat model that plays `role`; roles with the same model share it.

        Raises: ConfigError for router_settings that this litellm does not take.
        """
        return await self._chat_model(self._roles.get(role, self._main))

    async def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Dollars for so many tokens of the dearest deployment of any role; None where one's price is unknown."""
        costs = [await self._cost(model, prompt_tokens, completion_tokens) for model in self.models.values()]
        return _dearest(costs)

    async def role_cost(self, role: str, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Dollars for so many tokens of the dearest deployment that plays `role`; None where it is unknown."""
        return await self._cost(self.role(role), prompt_tokens, completion_tokens)

    def begin_import(self) -> None:
        """Starts litellm's import in a thread."""
        self._litellm = asyncio.create_task(asyncio.to_thread(load_litellm))

    async def close(self) -> None:
        """Ends the engines that are ours, lets go of connections, and puts litellm's settings back."""
        if self._litellm is not None and not self._litellm.done():
            await asyncio.wait([self._litellm])
        made, self._made = self._made, {}
        async with contextlib.AsyncExitStack() as closing:  # one that cannot be closed leaves none of the others open
            closing.push_async_callback(asyncio.to_thread, self._engines.close)
            for model in self.models.values():
                closing.callback(close_counter, model.counter)
            if self.prefix_cache is not None:  # before the engines end
                closing.push_async_callback(self.prefix_cache.close)
            shared, self._shared = self._shared, None
            if shared is not None:
                closing.callback(shared.release)
            if self.response_store is not None:
                closing.push_async_callback(self.response_store.close)
            for raw, _ in made.values():
                closing.push_async_callback(raw.close)

    async def _cost(self, model: OpenModel, prompt_tokens: int, completion_tokens: int) -> float | None:
        costs: list[float | None] = []
        for deployment in (d for g in (model.group, *model.fallbacks) for d in g.deployments):
            litellm = None if deployment.local or deployment.prices is not None else await self._loaded()
            prices: Prices | None = prices_of(deployment, litellm)
            costs.append(None if prices is None else prices.of(prompt_tokens, completion_tokens))
        return _dearest(costs)

    async def _loaded(self) -> ModuleType:
        if self._litellm is None:
            self.begin_import()
        assert self._litellm is not None  # noqa: S101 - set by begin_import
        return await self._litellm

    async def _chat_model(self, name: str) -> ChatModel:
        litellm = await self._loaded()
        if name not in self._made:  # no await from here on: another call may not make it meanwhile
            if self._shared is None:
                check_router_settings(self.calls.router, litellm)
                self._shared = SharedState(litellm, self.calls)
            model = self.models[name]
            try:
                raw = LitellmModel(
                    model.group,
                    retries=self.calls.retries,
                    timeout_s=self.calls.timeout_s,
                    idle_timeout_s=self.settings.idle_timeout_s,
                    max_parallel_calls=self.settings.max_parallel_calls,
                    limiter=self.limiter,
                    router_settings=self.calls.router,
                    other_groups=model.fallbacks,
                    prefixes=self.prefix_cache,
                )
            except (TypeError, ValueError) as error:
                raise ConfigError(f"router_settings: litellm's Router refuses them: {error}.") from error
            self._made[name] = (raw, wrapped(raw, self))
        return self._made[name][1]


def models_named(settings: Settings) -> tuple[str, dict[str, str]]:
    """The name of the model that serves by default, and those of roles that have their own.

    A default that nobody chose is not opened when the worker's model is named: that one stands in for it.
    """
    roles = dict(settings.roles)
    if "worker" in roles and "model" not in settings.model_fields_set:
        return roles["worker"], roles
    return settings.model, roles


async def open_gateway(
    settings: Settings,
    *,
    calls: bool = True,
    on_stage: OnStage | None = None,
    limiter: RateLimiter | None = None,
    response_store: ResponseStore | None = None,
    make_prefix_cache: MakePrefixCache | None = None,
) -> Gateway:
    """The gateway to `settings.model` and to the models of single roles.

    `calls` False leaves litellm alone until it is asked for. `limiter` keeps rates that are shared with other
    processes and stays the caller's to close; `response_store` keeps replies in place of the file in coa's folder,
    and is closed with the gateway, as is what `make_prefix_cache` gives.

    Raises: ModelNotFound for a name that nothing answers to, ConfigError, and what starting an engine raises.
    """
    tell = on_stage or (lambda _: None)
    main, roles = models_named(settings)
    names = list(dict.fromkeys([main, *roles.values()]))
    asked = call_settings(settings)
    importing = asyncio.create_task(asyncio.to_thread(load_litellm)) if calls else None
    engines = Engines()
    opening = (open_model(name, settings, asked, engines=engines, on_stage=tell) for name in names)
    found = await asyncio.gather(*opening, return_exceptions=True)
    failed = [outcome for outcome in found if isinstance(outcome, BaseException)]
    models = {name: model for name, model in zip(names, found, strict=True) if isinstance(model, OpenModel)}
    if failed:
        for model in models.values():
            close_counter(model.counter)
        await asyncio.to_thread(engines.close)
        if importing is not None:
            await asyncio.wait([importing])
        raise failed[0]
    gateway = Gateway(
        settings,
        models,
        calls=asked,
        engines=engines,
        limiter=limiter,
        response_store=response_store,
        make_prefix_cache=make_prefix_cache,
    )
    gateway._litellm = importing
    return gateway


def _dearest(costs: list[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return max(known, default=0.0) if len(known) == len(costs) else None
