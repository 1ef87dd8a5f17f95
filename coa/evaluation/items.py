"""What is asked of whom: the items of an evaluation, their keys, and the settings that they run with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from coa.config import Settings
from coa.errors import ConfigError
from coa.evaluation.controls import PASSAGE_TOKENS, STRATEGY_OF
from coa.evaluation.questions import Question, QuestionSet
from coa.evaluation.suite import Arm
from coa.types import Span
from coa.wiring import RUN_SETTINGS

__all__ = ["ArmSettings", "Item", "Told", "items_of", "question_from", "question_object", "settings_of_arm"]

_MOST_SHOWN = 400
_SCORING_META = ("metrics", "classes", "labels", "first_line")


class ArmSettings(NamedTuple):
    """An arm's settings, apart by what a session is opened with and what a view of it may change."""

    opened: Settings
    viewed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A question to an arm."""

    key: str
    """Of everything that the answer depends on: settings, question, document."""
    arm: Arm
    set: QuestionSet
    question: Question


class Told(NamedTuple):
    """A question as the ledger has it."""

    question: Question
    set: str
    language: str | None
    n_chars: int
    """Of its document."""
    position: float | None
    items: Mapping[str, str]
    """Keys by the arms' names."""
    shown: tuple[str, ...]
    """The gold evidence, for people."""


def settings_of_arm(arm: Arm, base: Settings) -> ArmSettings:
    """What an arm runs with over the configured settings.

    Replies are not given again from the response cache unless an option says so: an arm would seem cheaper for having
    come after another. Limits on spending hold for the whole evaluation, not for its runs. Raises: ConfigError.
    """
    options = {"response_cache": False, **arm.options}
    if arm.control is not None:
        options["strategy"] = STRATEGY_OF[arm.control]
        if options.get("notes", "auto") in {"auto", "quotes"}:
            options["notes"] = "paper"
        if options["strategy"] == "direct":
            options.setdefault("chunk_tokens", PASSAGE_TOKENS)
    else:
        options["strategy"] = arm.strategy
    free = {"max_calls": None, "max_tokens_total": None, "max_cost_usd": None, "review": False, "strict": False}
    opened = {k: v for k, v in options.items() if k not in RUN_SETTINGS}
    if arm.model is not None:
        opened["model"] = arm.model
    viewed = {k: v for k, v in options.items() if k in RUN_SETTINGS}
    given = base.model_dump(exclude_unset=True)
    try:
        return ArmSettings(Settings.model_validate({**given, **free, **opened}), viewed)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise ConfigError(f"arm {arm.name}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}.") from None


def items_of(arms: Sequence[Arm], sets: Sequence[QuestionSet], base: Settings) -> Iterator[Item]:
    """Every question to every arm, arm by arm, a document's questions one after the other."""
    for arm in arms:
        opened, viewed = settings_of_arm(arm, base)
        told = opened.model_copy(update=dict(viewed)).model_dump(mode="json", exclude_defaults=True)
        relevant = {k: told[k] for k in sorted(told.keys() & (RUN_SETTINGS | {"model", "roles", "window"}))}
        for one in sets:
            order = {doc: n for n, doc in enumerate(one.documents)}
            for question in sorted(one.questions, key=lambda q: order[q.doc_id]):
                sha256 = one.documents[question.doc_id].sha256
                parts = [relevant, arm.control, question.id, question.asked, sha256]
                digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
                yield Item(digest[:24], arm, one, question)


def question_object(question: Question, one: QuestionSet, items: Mapping[str, str]) -> dict[str, Any]:
    """The question as the ledger keeps it: enough to score an answer again without the document."""
    document = one.documents[question.doc_id]
    shown = [document.text[p[0].start : p[0].end][:_MOST_SHOWN] for p in question.gold if p]
    told = asdict(question)
    told |= {
        "gold": [[list(span) for span in piece] for piece in question.gold],
        "evidence": [],
        "meta": {k: v for k, v in question.meta.items() if k in _SCORING_META},
    }
    return {
        "set": one.name,
        "language": one.language_of(question),
        "n_chars": len(document.text),
        "position": question.position(len(document.text)),
        "asked": question.asked,
        "items": dict(items),
        "shown": shown,
        "question": told,
    }


def question_from(line: Mapping[str, Any]) -> Told:
    """The question that `question_object` told."""
    told = {**line["question"]}
    for key in ("answers", "options", "evidence"):
        told[key] = tuple(told[key])
    told["gold"] = tuple(tuple(Span(*span) for span in piece) for piece in told["gold"])
    return Told(
        Question(**told),
        line["set"],
        line["language"],
        line["n_chars"],
        line["position"],
        line["items"],
        tuple(line["shown"]),
    )
