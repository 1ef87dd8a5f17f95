"""Replies in the form of a pydantic model, from engines that enforce a schema and from those that do not.

What does not parse is repaired, asked for once more with the problem quoted, and at last salvaged: a list that was
cut off keeps its complete items. Nothing is made up on the way, and what was lost is counted.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError

from coa.errors import BadOutput, ModelError
from coa.llm.chat import ChatModel, Completion, Decoding, FinishReason
from coa.llm.json_replies import Region, closed, regions, repaired, without_last_item
from coa.llm.schemas import json_schema, shape
from coa.reading import Prompt
from coa.types import Usage

__all__ = ["How", "Parsed", "Structured", "Unusable", "parse_reply", "structured"]

M = TypeVar("M", bound=BaseModel)
How = Literal["enforced", "parsed", "repaired", "reasked", "salvaged"]

_MAX_ERRORS = 3
_MAX_PROBLEM_CHARS = 400
_CUT_OFF: frozenset[FinishReason] = frozenset({"length", "content_filter"})


@dataclass(frozen=True, slots=True)
class Structured(Generic[M]):
    """A reply in the form that was asked for."""

    value: M
    usage: Usage
    """Of all calls that it took."""
    how: How
    """"enforced": by the engine. "parsed": it stood in the text. "repaired": it was malformed, nothing is missing.
    "reasked": the second reply was in form. "salvaged": items are missing."""
    finish_reason: FinishReason
    """Of the reply that the value comes from."""
    lost: int = 0
    """Items that were seen in the reply and could not be kept; what a cut-off reply never came to is not counted."""
    warnings: tuple[str, ...] = ()

    @property
    def salvaged(self) -> bool:
        """True where items are missing from the value."""
        return self.how == "salvaged"


class Parsed(NamedTuple, Generic[M]):
    """What a reply says, in form."""

    value: M
    how: How
    lost: int


class Unusable(NamedTuple):
    """A reply that is not in form."""

    problem: str
    """For the model, without the reply's own words."""
    data: Any = None
    """What it says all the same; None where it says nothing."""
    lost: int = 0
    """Items that `data` lacks already."""


async def structured(
    model: ChatModel,
    prompt: Prompt,
    decoding: Decoding,
    form: type[M],
    *,
    repair: bool = True,
    reask: bool = True,
) -> Structured[M]:
    """The reply to `prompt` as a `form`.

    Where the model holds to schemas the form's is sent along, unless `decoding` has a schema or a grammar already;
    the prompt has to say the form in words all the same (`coa.llm.schemas.shape`), since other models know it from
    nowhere else. Without `repair` only well-formed replies count; `reask` allows one more call.

    Raises: BadOutput with the usage of all calls, and what the model raises (its usage counts the first call too).
    """
    enforced = model.supports_schema or (model.supports_grammar and decoding.grammar is not None)
    if model.supports_schema and decoding.schema is None and decoding.grammar is None:
        decoding = replace(decoding, schema=json_schema(form))
    first = await model.complete(prompt, decoding)
    usage = Usage().plus(first.usage, seconds=first.seconds)
    read = parse_reply(first.text, form, cut_off=first.finish_reason in _CUT_OFF, repair=repair)
    if isinstance(read, Parsed):
        return _result(read, first, usage, how="enforced" if enforced and read.how == "parsed" else read.how)
    replies = [(first, read)]
    failed: ModelError | None = None
    if repair and reask:
        try:
            second = await model.complete(_asked_again(prompt, read.problem, form), decoding)
        except ModelError as error:
            error.usage = usage = usage.merged(error.usage or Usage())
            failed = error
        else:
            usage = usage.plus(second.usage, seconds=second.seconds)
            again = parse_reply(second.text, form, cut_off=second.finish_reason in _CUT_OFF)
            if isinstance(again, Parsed):
                how: How = "salvaged" if again.how == "salvaged" else "reasked"
                return _result(again, second, usage, how=how, before=read.problem)
            replies.insert(0, (second, again))
    return _rescued(replies if repair else [], usage, form) or _raised(failed, model.name, replies[0], usage)


def _rescued(replies: list[tuple[Completion, Unusable]], usage: Usage, form: type[M]) -> Structured[M] | None:
    """What is in form of replies that are not; None where it is nothing."""
    kept = _most_kept(replies, form)
    if kept is None:
        return None
    completion, parsed, problem = kept
    return _result(parsed, completion, usage, how="salvaged", before=problem)


def _raised(failed: ModelError | None, name: str, reply: tuple[Completion, Unusable], usage: Usage) -> NoReturn:
    if failed is not None:
        raise failed
    completion, unusable = reply
    raise BadOutput(
        f"{name} did not reply in the form that was asked for: {unusable.problem}.",
        deployment=completion.deployment,
        usage=usage,
    )


def parse_reply(text: str, form: type[M], *, cut_off: bool = False, repair: bool = True) -> Parsed[M] | Unusable:
    """What `text` says as a `form`; `cut_off` says that the reply reached its token limit.

    Of several well-formed values the last one in form counts: models that think aloud conclude at the end.
    """
    found = regions(text)
    outer = [region.value for region in found if region.whole and not region.inside]
    unusable = Unusable("its JSON is malformed" if found else "there is no JSON in it")
    for value in reversed(outer):
        fit, problem = _validated(value, form)
        if fit is not None:
            return Parsed(fit, "parsed", 0)
        if unusable.data is None:
            unusable = Unusable(problem, value)
    if not repair:
        return unusable
    wrapped = _wrapped(_together(outer), form)
    if wrapped is not None:
        return Parsed(wrapped, "repaired", 0)
    for region in found:
        if not region.whole and not region.inside:
            read = _mended(region, form, cut_off=cut_off)
            if isinstance(read, Parsed):
                return read
            unusable = unusable if unusable.data is not None else read
    for region in reversed(found):
        fit, _ = _validated(region.value, form) if region.inside and region.whole else (None, "")
        if fit is not None:
            return Parsed(fit, "parsed", 0)
    return unusable


def _mended(region: Region, form: type[M], *, cut_off: bool) -> Parsed[M] | Unusable:
    """A malformed stretch, closed where it breaks off, else repaired."""
    unusable = Unusable("its JSON is malformed")
    end = closed(region.text, cut_off=cut_off) if region.open_ended else None
    if end is not None:
        fit, problem = _fitted(end.value, form)
        if fit is not None and not end.empty:
            return Parsed(fit, "salvaged" if cut_off or end.lost else "repaired", end.lost)
        if end.empty:
            return Unusable("it breaks off before its first item is complete")
        return Unusable(problem, end.value, end.lost)
    mended = repaired(region.text)
    if mended is None:
        return unusable
    lost, empty = 0, False
    if region.open_ended:
        shortened = without_last_item(mended)
        lost, empty = int(shortened is not None), shortened == []
    fit, problem = _fitted(mended, form)
    if fit is not None and not empty:
        return Parsed(fit, "salvaged" if region.open_ended else "repaired", lost)
    return unusable if empty else Unusable(problem, mended, lost)


def _fitted(data: object, form: type[M]) -> tuple[M | None, str]:
    """`data` as a form, as it stands or as the form's list; else the problem."""
    fit, problem = _validated(data, form)
    return (fit, "") if fit is not None else (_wrapped(data, form), problem)


def _validated(data: object, form: type[M]) -> tuple[M | None, str]:
    """`data` as a form, or None and the problem in words."""
    if isinstance(data, dict) and data and not issubclass(form, RootModel):
        names = {
            name for key, field in form.model_fields.items() for name in (key, field.alias, field.validation_alias)
        }
        if not names.intersection(data):
            return None, f"it has none of the fields {', '.join(form.model_fields)}"
    try:
        return form.model_validate(data), ""
    except ValidationError as error:
        return None, _described(error)
    except RecursionError:
        return None, "it is nested too deeply"


def _described(error: ValidationError) -> str:
    """What is wrong, without the reply's own words: they may be the document's."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{'.'.join(str(part) for part in e['loc']) or 'the whole'}: {e['msg']}" for e in errors[:_MAX_ERRORS]]
    more = f" (and {len(errors) - _MAX_ERRORS} more)" if len(errors) > _MAX_ERRORS else ""
    return "; ".join(told)[:_MAX_PROBLEM_CHARS] + more


def _list_field(form: type[BaseModel]) -> str | None:
    """The only field of the form, or its only list: what a bare list must be meant for."""
    fields = form.model_fields
    lists = [name for name, field in fields.items() if get_origin(field.annotation) in (list, tuple)]
    return lists[0] if len(lists) == 1 else None


def _wrapped(data: object, form: type[M]) -> M | None:
    """Bare items as the form's only list."""
    if not isinstance(data, list | dict) or not data:
        return None
    items = data if isinstance(data, list) else [data]
    root = issubclass(form, RootModel)
    name = "root" if root else _list_field(form)
    if name is None:
        return None
    kind = next(iter(get_args(form.model_fields[name].annotation)), None)
    if isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, RootModel):
        names = _names(kind)
        if any(isinstance(item, dict) and not names.intersection(item) for item in items):
            return None  # an item of nothing but defaults would be made up
    return _validated(items if root else {name: items}, form)[0]


def _names(form: type[BaseModel]) -> set[object]:
    return {name for key, field in form.model_fields.items() for name in (key, field.alias, field.validation_alias)}


def _together(values: list[Any]) -> object:
    """Several values of one reply as one: objects one after the other, or lists of one item ("[3] and [7]")."""
    if len(values) > 1 and all(isinstance(v, dict) for v in values):
        return values
    if len(values) > 1 and all(isinstance(v, list) and len(v) <= 1 for v in values):
        return [item for value in values for item in value]
    return values[-1] if values else None


def _most_kept(replies: list[tuple[Completion, Unusable]], form: type[M]) -> tuple[Completion, Parsed[M], str] | None:
    """Of replies with items that are not in form, the one that loses least without them."""
    kept = []
    for completion, unusable in replies:
        parsed = _without_bad_items(unusable, form)
        if parsed is not None:
            kept.append((completion, parsed, unusable.problem))
    return min(kept, key=lambda entry: entry[1].lost, default=None)


def _without_bad_items(unusable: Unusable, form: type[M]) -> Parsed[M] | None:
    """What is left without the items that are not in form; None where a list would be left empty."""
    data, lost = copy.deepcopy(unusable.data), unusable.lost
    name = None if issubclass(form, RootModel) else _list_field(form)
    if isinstance(data, list) and name is not None:
        data = {name: data}
    try:
        form.model_validate(data)
    except ValidationError as error:
        bad: dict[int, tuple[list[Any], set[int]]] = {}
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            place = _item_of(data, detail["loc"])
            if place is None:
                return None
            bad.setdefault(id(place[0]), (place[0], set()))[1].add(place[1])
        for items, indices in bad.values():
            if len(indices) == len(items):
                return None
            items[:] = [item for n, item in enumerate(items) if n not in indices]
            lost += len(indices)
    fit, _ = _validated(data, form)
    return None if fit is None or lost == 0 else Parsed(fit, "salvaged", lost)


def _item_of(data: Any, loc: tuple[int | str, ...]) -> tuple[list[Any], int] | None:
    """The outermost list on the way to `loc`, and the place in it; None where there is none."""
    for part in loc:
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            return data, part
        if not isinstance(data, dict) or part not in data:
            return None
        data = data[part]
    return None


def _asked_again(prompt: Prompt, problem: str, form: type[BaseModel]) -> Prompt:
    """The same prompt with the problem after it: the cached prefix serves both."""
    return replace(
        prompt,
        tail=f"{prompt.tail.rstrip()}\n\nAn earlier reply could not be used: {problem}. "
        f"Reply with JSON alone, complete and short, in this form:\n{shape(form)}\n",
    )


def _result(parsed: Parsed[M], completion: Completion, usage: Usage, *, how: How, before: str = "") -> Structured[M]:
    warnings = []
    if how == "reasked":
        warnings.append(f"the first reply was not in form ({before}); it was asked for again.")
    if how == "salvaged":
        lost = f"{parsed.lost} item{'s' if parsed.lost != 1 else ''} of it could not be used"
        cut = completion.finish_reason in _CUT_OFF
        warnings.append(f"a reply was cut off; {lost}." if cut else f"a reply was partly out of form; {lost}.")
    return Structured(parsed.value, usage, how, completion.finish_reason, parsed.lost, tuple(warnings))
