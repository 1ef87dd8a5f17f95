"""What is asked of each document of a batch: written down as short JSON texts, and asked of a session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from coa.agents.statements import Statement, statements_from, statements_to_text
from coa.api import Session
from coa.config import Settings
from coa.llm.gateway import models_named
from coa.reading import PREFIX_VERSION
from coa.runs import Task
from coa.types import Answer, Document
from coa.wiring import RUN_SETTINGS

__all__ = [
    "ask_item",
    "check_payload",
    "fingerprint",
    "id_of",
    "item_key",
    "plain_payload",
    "question_of",
    "question_payload",
    "result_settings",
    "strategy_of",
    "task_of",
]

_FORMAT = 1
_SPENDING = frozenset({"max_calls", "max_tokens_total", "max_cost_usd"})
_READING = ("window", "reader")


def question_payload(question: str, *, item_id: str | None = None) -> str:
    """An item that asks `question`; `item_id` is the caller's own name for it."""
    return _payload("ask", question=question, id=item_id)


def check_payload(statements: Sequence[Statement]) -> str:
    """An item that checks all of `statements`."""
    return _payload("check", statements=statements_to_text(statements))


def plain_payload(task: Literal["summarize", "structure"], **options: object) -> str:
    """An item of a task without a question; `options` are those of the session's method."""
    return _payload(task, **options)


def item_key(digest: str, config: str, payload: str) -> str:
    """What names the result: 64 hexadecimal digits of the document's digest, the configuration's, and what is asked.

    The caller's name of an item is not part of it.
    """
    asked = {name: value for name, value in json.loads(payload).items() if name != "id"}
    return hashlib.sha256(json.dumps([_FORMAT, digest, config, asked], sort_keys=True).encode()).hexdigest()


def fingerprint(settings: Settings) -> str:
    """What names a configuration: 16 hexadecimal digits of all settings that a result depends on.

    Keys, addresses, time limits and budgets are not among them: another one of those gives the same answer.
    """
    names = models_named(settings)
    told: dict[str, object] = {name: getattr(settings, name) for name in result_settings()}
    told["models"] = names
    told["roles"] = settings.roles
    told["served"] = sorted(
        f"{entry['model_name']}={entry['litellm_params']['model']}"
        for entry in settings.model_list
        if entry["model_name"] in names
    )
    text = json.dumps([_FORMAT, PREFIX_VERSION, told], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def result_settings() -> list[str]:
    """The settings that a result depends on, the models apart."""
    return [*sorted(RUN_SETTINGS - _SPENDING), *_READING]


def task_of(payload: str) -> Task:
    """What is to be done."""
    return cast("Task", json.loads(payload)["task"])


def question_of(payload: str) -> str | None:
    """The question, or the statements one a line; None for other tasks."""
    asked = json.loads(payload)
    return cast("str | None", asked.get("question") or asked.get("statements"))


def id_of(payload: str) -> str | None:
    """The caller's own name of the item."""
    return cast("str | None", json.loads(payload).get("id"))


def strategy_of(payload: str, settings: Settings) -> str:
    """The strategy that an item is read by."""
    return {"structure": "outline", "check": "check"}.get(task_of(payload), settings.strategy)


async def ask_item(session: Session, document: Document, payload: str, *, run_id: str) -> Answer:
    """The answer to an item, by the run of that id: begun, or gone on with. Raises: as `Session.ask`."""
    asked: Mapping[str, Any] = json.loads(payload)
    match asked["task"]:
        case "ask":
            return await session.ask(document, asked["question"], run_id=run_id)
        case "check":
            return await session.check(document, statements_from(asked["statements"]), run_id=run_id)
        case "structure":
            return await session.structure(document, form=asked.get("form", "ids"), run_id=run_id)
        case _:
            return await session.summarize(
                document,
                words=asked.get("words"),
                per=asked.get("per", "book"),
                language=asked.get("language", "auto"),
                run_id=run_id,
            )


def _payload(task: str, **values: object) -> str:
    told = {"task": task, **{name: value for name, value in values.items() if value is not None}}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
