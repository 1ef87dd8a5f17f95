"""What stands between a group's calls and the agents: the response cache, before it logs and spans, and a listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coa.llm.chat import ChatModel
from coa.llm.recording import HeardModel
from coa.llm.response_cache import CachedModel, group_identity, weights_of
from coa.llm.response_file import FileResponses, responses_file
from coa.llm.tracing import ObservedModel
from coa.llm.whole_replies import WholeModel

if TYPE_CHECKING:
    from coa.llm.gateway import Gateway

__all__ = ["wrapped"]


def wrapped(model: ChatModel, gateway: Gateway) -> ChatModel:
    """`model` with what the gateway's settings put around it."""
    opened = gateway.named(model.name)
    inner = model
    if gateway.settings.response_cache and opened is not None:
        if gateway.response_store is None:
            settings = gateway.settings
            gateway.response_store = FileResponses(responses_file(settings.home), settings.response_cache_bytes)

        def identity() -> str:
            weights = {d.id: weights_of(d, opened.served.get(d.id), opened.files) for d in opened.group.deployments}
            known = {id_: found for id_, found in weights.items() if found is not None}
            # Whether a schema is sent along hangs on litellm's tables, too, which change with its releases.
            return f"{group_identity(opened.group, known)} {model.supports_schema}"

        inner = CachedModel(
            model,
            gateway.response_store,
            identity,
            deployments=[d.id for d in opened.group.deployments],
            on_trouble=gateway.warn,
        )
    return WholeModel(HeardModel(ObservedModel(inner, None if opened is None else opened.group)))
