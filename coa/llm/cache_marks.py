"""Marks for providers that cache a prompt only up to where they are told to.

Claude, wherever it is served, and Amazon Nova on Bedrock take a mark on a part of a message: the reading prefix becomes
a part of its own. Writing a cache costs a quarter more than reading tokens and lasts five minutes, a hit costs a tenth;
so a mark on a prefix that is read once would only cost. A prefix shorter than the model's minimum (1,024 tokens and up)
is read as without.

No marks for OpenAI, Azure, DeepSeek and the like, which cache by themselves, nor for Gemini: it caches by itself, too,
and litellm turns a mark into a cache of its own of the whole message, kept and billed by the hour.
Sources: platform.claude.com/docs, prompt caching; litellm/llms/{anthropic,bedrock,vertex_ai/context_caching}.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from coa.llm.deployments import Deployment
from coa.reading import Prompt

__all__ = ["marked_messages", "takes_marks"]

_CLAUDE = frozenset(
    {"anthropic", "azure_ai", "bedrock", "bedrock_converse", "databricks", "openrouter", "vertex_ai", "vertex_ai_beta"}
)
_NOVA = frozenset({"bedrock", "bedrock_converse"})


def marked_messages(
    prompt: Prompt, deployments: Iterable[Deployment], litellm: ModuleType, *, reads: int = 2
) -> list[dict[str, Any]] | None:
    """The prompt's messages with a mark at the end of its reading prefix; None where there is to be none.

    `deployments` are all that the call may go to, fallbacks included: one that knows no marks may refuse them. `reads`
    is how often the prefix is going to be sent within five minutes.
    """
    if not prompt.prefix or reads < 2:
        return None
    asked = list(deployments)
    if not asked or not all(takes_marks(deployment, litellm) for deployment in asked):
        return None
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": prompt.prefix, "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": prompt.tail},
    ]
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": parts}]


def takes_marks(deployment: Deployment, litellm: ModuleType) -> bool:
    """Whether litellm hands a mark on to the deployment, and it caches by it."""
    if deployment.kind != "hosted":
        return False
    model = str((deployment.info or {}).get("base_model") or deployment.model)
    try:
        _, provider, *_ = litellm.get_llm_provider(model=model)
    except Exception:  # litellm raises what it likes for a name that it does not know
        return False
    name = deployment.model.lower()
    family = ("claude" in name and provider in _CLAUDE) or ("nova" in name and provider in _NOVA)
    return family and bool(litellm.utils.supports_prompt_caching(model=model))
