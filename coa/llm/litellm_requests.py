"""A prompt and its decoding as the parameters of litellm's `acompletion`, and the time that they may take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.pacing import Deadline
from coa.reading import Prompt

__all__ = [
    "deadline_for",
    "enforces_schema",
    "engine_body",
    "list_ollama_models",
    "list_unknown_models",
    "litellm_entry",
    "own_timeout",
    "request_for",
]

# A slow laptop reads about 20 tokens a second and writes 2; the timeout is for hung servers, not for slow ones.
_SLOW_READING = 20.0
_SLOW_WRITING = 2.0
_CHARS_PER_TOKEN = 3.0
_BASE_TIMEOUT_S = 60.0
# litellm keeps a client, with connections of its own, for each timeout that it is given. Ours are exact and come
# first; the client's are for what they cannot see.
_CLIENT_STEP_S = 240.0

# Not those that litellm asks a server about when it looks for a model.
_SERVED_BY_OTHERS = frozenset({"hosted_vllm", "openai"})

# What the Router would enforce by refusing calls; here they wait instead.
_LIMITS = frozenset({"rpm", "tpm", "group_rpm", "group_tpm", "max_parallel_requests"})


def request_for(
    group: ModelGroup, prompt: Prompt, decoding: Decoding, *, schemas: bool, total_s: float
) -> dict[str, Any]:
    """Everything but where it goes. A schema takes the place of a grammar where `schemas` says that it is obeyed."""
    request: dict[str, Any] = {
        "messages": prompt.messages(),
        "max_tokens": decoding.max_tokens,
        "temperature": decoding.temperature,
        # Some hosted models refuse a temperature of 0 or a parameter of another's; litellm leaves those out then.
        "drop_params": True,
        "num_retries": 0,
        "timeout": math.ceil((total_s + 1.0) / _CLIENT_STEP_S) * _CLIENT_STEP_S,
    }
    if decoding.seed is not None:
        request["seed"] = decoding.seed
    schema = decoding.schema if schemas else None
    if schema is not None:
        form = {"name": "reply", "schema": dict(schema), "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": form}
    if group.supports_grammar:
        body = engine_body()
        if decoding.grammar is not None and schema is None:  # llama.cpp refuses both at once
            body["grammar"] = decoding.grammar
        if decoding.repeat_penalty is not None:
            body["repeat_penalty"] = decoding.repeat_penalty
        request["extra_body"] = body
    return request


def engine_body() -> dict[str, Any]:
    """What every call to a llama.cpp server carries.

    A prefix left over in the slot would shift the borders of computed batches, and with them greedy text: a
    resumed run could answer otherwise than an uninterrupted one. Notes are short: no thinking aloud.
    """
    return {"cache_prompt": False, "chat_template_kwargs": {"enable_thinking": False}}


def litellm_entry(deployment: Deployment, group: str) -> dict[str, Any]:
    """The deployment's entry of a model_list without the limits that we keep ourselves.

    Those have been the weights of litellm's default routing, and stay that.
    """
    entry: dict[str, Any] = deployment.as_litellm(group)
    params = {k: v for k, v in entry["litellm_params"].items() if k not in _LIMITS}
    info = {k: v for k, v in entry["model_info"].items() if k not in _LIMITS}
    given = {**entry["model_info"], **entry["litellm_params"]}
    weight = params.get("weight") or given.get("rpm") or given.get("tpm")
    if weight is not None:
        params["weight"] = weight
    if deployment.kind == "llama_server":
        params["extra_body"] = {**engine_body(), **(params.get("extra_body") or {})}
    return {**entry, "litellm_params": params, "model_info": info}


def deadline_for(
    prompt: Prompt, decoding: Decoding, *, timeout_s: float | None, idle_timeout_s: float, stream: bool
) -> Deadline:
    """The time limits of a call: `timeout_s`, or what a slow machine takes for so many tokens."""
    n_prompt = (len(prompt.system) + len(prompt.prefix) + len(prompt.tail)) / _CHARS_PER_TOKEN
    reading_s = _BASE_TIMEOUT_S + n_prompt / _SLOW_READING
    total_s = timeout_s or reading_s + decoding.max_tokens / _SLOW_WRITING
    return Deadline(total_s=total_s, first_s=reading_s if stream else None, idle_s=idle_timeout_s if stream else None)


def own_timeout(deployment: Deployment, *, stream: bool) -> float | None:
    """The limit that the deployment's own entry sets (litellm's `timeout`, `stream_timeout`); None for none."""
    params: Mapping[str, object] = deployment.params or {}
    given = (params.get("stream_timeout") if stream else None) or params.get("timeout")
    try:
        seconds = float(given) if isinstance(given, int | float | str) else 0.0
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None


def list_ollama_models(litellm: ModuleType, deployments: Iterable[Deployment]) -> None:
    """Enters models of Ollama into litellm's list, free of charge.

    Of those that it lacks it asks the server after each call, and holds up the event loop while it waits.
    """
    for deployment in deployments:
        if deployment.provider in {"ollama", "ollama_chat"}:
            entry = {"litellm_provider": deployment.provider, "mode": "chat"}
            prices = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
            litellm.model_cost.setdefault(deployment.model, {**entry, **prices})


def list_unknown_models(litellm: ModuleType, deployments: Iterable[Deployment]) -> None:
    """Enters into litellm's list what it lacks of models that people serve themselves, without a price; so does its
    Router.

    It looks for the price of one that it lacks under ten names and by a hundred patterns, several times a call, and
    remembers only what it finds.
    """
    for deployment in deployments:
        if deployment.provider not in _SERVED_BY_OTHERS:
            continue
        try:
            litellm.get_model_info(model=deployment.model)
        except Exception:  # it raises plain Exception for a name that it does not know
            entry = {"litellm_provider": deployment.provider, "mode": "chat"}
            litellm.model_cost.setdefault(deployment.model, entry)


def enforces_schema(deployments: Iterable[Deployment], litellm: ModuleType) -> bool:
    """Whether all of them hold a reply to a JSON schema."""
    return all(
        d.local or bool(litellm.supports_response_schema(model=str((d.info or {}).get("base_model") or d.model)))
        for d in deployments
    )
