"""The structurizer: a chunk's scope, aspects and descriptions, asked for once and good for every question.

Source: StruXGPT, Liu et al. 2024 (NeurIPS), section 3; sentence ranges in place of copied text are the authors'
second version. A model under a billion parameters cannot do it (names of its own making, copied instructions), so
for those code finds the parts and titles them with phrases of the text.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

from coa.agents.keyphrases import phrase_title
from coa.agents.languages import write_in
from coa.agents.prompting import PromptTemplate
from coa.agents.segmentation import segments, sentence_texts
from coa.agents.structure import (
    Aspect,
    Description,
    Draft,
    MadeBy,
    Structure,
    TitleOf,
    completed,
    covered,
    plain_structure,
)
from coa.agents.structure_parsing import parse_ranges
from coa.agents.structure_statements import aligned, parse_statements
from coa.errors import BadOutput, LimitsError, ModelError
from coa.limits import Limits, ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import ChatModel, Decoding
from coa.llm.schemas import shape
from coa.llm.structured import structured
from coa.reading import PREFIX_VERSION, SYSTEM, reading_prompt
from coa.tokens import EstimatedTokens
from coa.types import Chunk, Usage

__all__ = ["STRUCTURE_TOKENS", "Form", "How", "Structurizer", "StructurizerReply", "structure_by_code"]

Form = Literal["ids", "free"]
How = Literal["stored", "code", "enforced", "strict", "repaired", "asked again", "fallback"]

FORM_VERSION = 1
"""Of what a structure means; stored structures of another version are made anew."""

STRUCTURE_TOKENS = 300
"""Of a reply, about; for estimates."""

_SENTENCES_PER_ASPECT = 6
_FEWEST_ASPECTS, _MOST_ASPECTS = 3, 12
_TOKENS_PER_LINE = 32
_SCOPE_TOKENS = 48
_CHAT_TEMPLATE_TOKENS = 48
# Statements restate the text: about its length, with numbers and aspects.
_FREE_RATIO = 1.35
_TITLE_CHARS = 90
_REPEAT_PENALTY = 1.05
# A reply that leaves out more than this is no structure of the chunk.
_LEAST_COVERED = 0.5
_CALLS = 2
_EXAMPLE = frozenset(
    {"noun phrase", "first aspect", "second aspect", "a part of it", "another part of it", "first description"}
)
"""What stands for titles in the prompts; very weak models write it down."""
_HOW: dict[str, How] = {
    "enforced": "enforced",
    "parsed": "strict",
    "repaired": "repaired",
    "salvaged": "repaired",
    "reasked": "asked again",
}
_NOTHING = "(no text)"


class PartForm(BaseModel):
    """A part of an aspect as JSON."""

    title: str
    first: int
    last: int


class AspectForm(PartForm):
    """An aspect as JSON."""

    parts: list[PartForm] = Field(default_factory=list)


class StructureForm(BaseModel):
    """A structure as JSON; the same for every chunk, since a schema stands before the prompt at some providers."""

    scope: str
    aspects: list[AspectForm]


class StructurizerReply(NamedTuple):
    """A chunk's structure and what it took."""

    structure: Structure
    usage: Usage
    how: How
    """"stored": by an earlier run. "code": without a model. "enforced", "strict": the reply kept to the form (held to
    by the engine, by itself). "repaired": it was read as well as could be. "asked again": the second reply could be
    used. "fallback": neither could, so the structure is the plain text."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What a reply came to."""

    scope: str
    drafts: Sequence[Draft]
    fault: str | None


class Structurizer:
    """Structures chunks over one model; keeps nothing between calls."""

    def __init__(
        self,
        model: ChatModel,
        limits: Limits,
        profile: ReadingProfile,
        *,
        language: str | None = None,
        form: Form = "ids",
        temperature: float = 0.0,
    ) -> None:
        """`language` is the ISO 639-1 code that titles are to be written in; None leaves it to the model.

        `form` "free" has the model restate the text (StruXGPT's first version) and takes about as many tokens out
        as in; "ids" asks for sentence numbers alone.
        """
        self.model = model
        self._limits = limits
        self._profile = profile
        self._language = language
        self._form = form
        self._temperature = temperature
        self._by_code = profile.quotes
        self._by_schema = model.supports_schema and not (profile.bounded and model.supports_grammar)
        self._template = _template(form, by_schema=self._by_schema)

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record; empty where no model is asked."""
        return {} if self._by_code else {self._template.name: self._template.digest}

    @property
    def identity(self) -> str:
        """Names everything that a structure depends on besides its chunk; for keys of stored structures."""
        if self._by_code:
            made_with: list[object] = ["code"]
        else:
            made_with = [self._form, self.model.name, self._temperature, self._language, PREFIX_VERSION]
            made_with += [self._template.digest, self._by_schema, self.model.supports_grammar, self._profile.bounded]
        return hashlib.sha256(json.dumps([FORM_VERSION, *made_with]).encode()).hexdigest()

    async def structurize(self, chunk: Chunk) -> StructurizerReply:
        """The structure of `chunk`; each of its sentences is in it exactly once.

        A reply that cannot be used is asked for once more; when that one cannot be used either, the structure is
        the plain text: one aspect over everything. Raises: LimitsError where the reply would not fit into the
        window; ModelError of a call.
        """
        texts = sentence_texts(chunk)
        if not texts:
            return StructurizerReply(plain_structure(0, _NOTHING, made_by="code"), Usage(), "code")
        if self._by_code:
            return StructurizerReply(structure_by_code(texts), Usage(), "code")
        if self._form == "ids" and self._by_schema:
            return await self._enforced(chunk, texts)
        return await self._asked(chunk, texts)

    def demand(self, chunk: Chunk) -> Demand:
        """The most that `structurize` can take."""
        if self._by_code or not chunk.sentences:
            return Demand(0)
        prompt = chunk.n_tokens + self._tail_tokens(chunk)
        return Demand(_CALLS, _CALLS * prompt, _CALLS * self._max_tokens(chunk))

    async def _enforced(self, chunk: Chunk, texts: Sequence[str]) -> StructurizerReply:
        """By a JSON schema, held to by the engine."""
        try:
            reply = await structured(
                self.model, reading_prompt(chunk, self._tail(chunk, "")), self._decoding(chunk), StructureForm
            )
        except BadOutput as error:
            return StructurizerReply(_plain(texts), error.usage or Usage(), "fallback")
        drafts = [_draft(a) for a in reply.value.aspects]
        return self._reply(_Read(reply.value.scope, drafts, None), texts, reply.usage, _HOW[reply.how])

    async def _asked(self, chunk: Chunk, texts: Sequence[str]) -> StructurizerReply:
        """As text, under a grammar where there is one."""
        usage = Usage()
        remark = ""
        how: How = "strict"
        for _ in range(_CALLS):
            try:
                completion = await self.model.complete(
                    reading_prompt(chunk, self._tail(chunk, remark)), self._decoding(chunk)
                )
            except ModelError as error:
                error.usage = usage.merged(error.usage or Usage())
                raise
            usage = usage.plus(completion.usage, seconds=completion.seconds)
            read = _without_echoes(self._read(completion.text, texts))
            if covered(read.drafts, len(texts)) >= _LEAST_COVERED * len(texts):
                return self._reply(read, texts, usage, how if read.fault is None or how != "strict" else "repaired")
            remark = f"An earlier reply could not be used: {read.fault or 'it left most of the text out'}."
            how = "asked again"
        return StructurizerReply(_plain(texts), usage, "fallback")

    def _read(self, reply: str, texts: Sequence[str]) -> _Read:
        if self._form == "ids":
            return _Read(*parse_ranges(reply, len(texts)))
        statements = parse_statements(reply)
        return _Read(statements.scope, aligned(statements, texts), statements.fault)

    def _reply(self, read: _Read, texts: Sequence[str], usage: Usage, how: How) -> StructurizerReply:
        if covered(read.drafts, len(texts)) < _LEAST_COVERED * len(texts):
            return StructurizerReply(_plain(texts), usage, "fallback")
        made_by: MadeBy = self._form
        structure = completed(read.scope, read.drafts, len(texts), _titles(texts), made_by=made_by)
        return StructurizerReply(structure, usage, how)

    def _tail(self, chunk: Chunk, remark: str) -> str:
        common = {"language": write_in(self._language)}
        if self._form == "free":
            return self._template.render(remark=remark, **common)
        common |= {"aspects": str(self._most_aspects(chunk)), "last": str(len(chunk.sentences))}
        if self._by_schema:
            return self._template.render(shape=shape(StructureForm), **common)
        return self._template.render(remark=remark, **common)

    def _decoding(self, chunk: Chunk) -> Decoding:
        bounded = self.model.supports_grammar and self._profile.bounded and self._form == "ids"
        return Decoding(
            max_tokens=self._max_tokens(chunk),
            temperature=self._temperature,
            grammar=_grammar(self._most_aspects(chunk)) if bounded else None,
            repeat_penalty=_REPEAT_PENALTY if bounded else None,
        )

    def _max_tokens(self, chunk: Chunk) -> int:
        """Of a reply: what it needs, if the window has that much."""
        room = self._limits.window - chunk.n_tokens - self._tail_tokens(chunk)
        if self._form == "free":
            needed = int(chunk.n_tokens * _FREE_RATIO) + _SCOPE_TOKENS
            if room < needed:
                raise LimitsError(
                    f"chunk {chunk.index + 1} has {chunk.n_tokens} tokens; restating it takes about {needed}, and the "
                    f"window of {self._limits.window} leaves {room}.",
                    hint="Lower --chunk-tokens, or use --form ids.",
                )
            return needed
        # As many lines again for the parts of aspects.
        return max(_SCOPE_TOKENS + _TOKENS_PER_LINE, min(room, _SCOPE_TOKENS + 2 * _TOKENS_PER_LINE * _aspects(chunk)))

    def _most_aspects(self, chunk: Chunk) -> int:
        """How many aspects to ask for: as the chunk has sentences, and as the reply has room."""
        return max(1, min(_aspects(chunk), (self._max_tokens(chunk) - _SCOPE_TOKENS) // _TOKENS_PER_LINE))

    def _tail_tokens(self, chunk: Chunk) -> int:
        text = SYSTEM + "\n" + self._template.text + (shape(StructureForm) if self._by_schema else "")
        return EstimatedTokens().count([text])[0] + _CHAT_TEMPLATE_TOKENS


def structure_by_code(sentences: Sequence[str]) -> Structure:
    """The structure that code finds, without a model; `sentences` carry the white space behind them.

    Empty input gives a structure without aspects.
    """
    titles = _titles(sentences)
    aspects = tuple(
        Aspect(titles(start, end), (Description(start, end),), origin="code") for start, end in segments(sentences)
    )
    return Structure(titles(0, len(sentences)), aspects, len(sentences), "code")


def _titles(sentences: Sequence[str]) -> TitleOf:
    """Titles by code for ranges of the sentences."""
    return lambda start, end: phrase_title(sentences[start:end], sentences)


def _plain(texts: Sequence[str]) -> Structure:
    return plain_structure(len(texts), _titles(texts)(0, len(texts)))


def _without_echoes(read: _Read) -> _Read:
    """What was read without the prompt's own example; nothing where most of it is that."""
    echoed = [d for d in read.drafts if _is_echo(d.title)]
    if 2 * len(echoed) > len(read.drafts):
        return _Read("", (), "it repeats the example of the form")
    for draft in echoed:
        draft.title = ""
    return read if not _is_echo(read.scope) else replace(read, scope="")


def _is_echo(title: str) -> bool:
    return title.strip(" .").casefold() in _EXAMPLE


def _draft(form: AspectForm) -> Draft:
    parts = [Draft(p.title, [_range(p)]) for p in form.parts]
    return Draft(form.title, [_range(form)], parts)


def _range(form: PartForm) -> Description:
    return Description(min(form.first, form.last) - 1, max(form.first, form.last))


def _aspects(chunk: Chunk) -> int:
    return max(_FEWEST_ASPECTS, min(_MOST_ASPECTS, math.ceil(len(chunk.sentences) / _SENTENCES_PER_ASPECT)))


def _grammar(aspects: int) -> str:
    """GBNF of the numbered lines, at most `aspects` of them, without parts: it ends by itself."""
    return (
        f'root ::= "Scope: " title "\\n" item{{1,{aspects}}}\n'
        'item ::= [1-9] [0-9]? ". " title " [" number "-" number "]\\n"\n'
        f"title ::= [^\\n\\r\\t\\[\\]0-9] [^\\n\\r\\t\\[\\]]{{3,{_TITLE_CHARS}}}\n"
        "number ::= [1-9] [0-9]? [0-9]?\n"
    )


def _template(form: Form, *, by_schema: bool) -> PromptTemplate:
    if form == "free":
        return PromptTemplate("structurizer_free", "language", "remark")
    if by_schema:
        return PromptTemplate("structurizer_json", "aspects", "language", "last", "shape")
    return PromptTemplate("structurizer_lines", "aspects", "language", "last", "remark")
