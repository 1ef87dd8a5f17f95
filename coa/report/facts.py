"""What a run's files tell of it, as values: the chain entry by entry, for pages and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from coa.agents.checked import Checked, checked_of
from coa.agents.outline import Outline
from coa.agents.places import sentence_at
from coa.agents.references import Reference, references
from coa.agents.structure import Structure
from coa.agents.structure_steps import structures_of
from coa.runs import PartAnswer, RunPlan, RunRecord, RunStore, StoredNote, StoredStep
from coa.structures import outline_of
from coa.types import Answer, Chunk, Document, Span, Usage

__all__ = ["Entry", "RunFacts", "cached_share", "facts_of"]

EntryKind = Literal["note", "step", "answer"]

_TITLES = {
    "auto": "Choice of the strategy",
    "select": "Choice of the chunks",
    "statements": "Choice of the sentences",
    "evidence": "Evidence",
    "review": "Review by a person",
    "reason": "Another round",
    "verdict": "Verdict",
    "structure": "Structure",
    "choose": "Choice of the aspects",
    "page": "Reading of chosen aspects",
    "passages": "Passages",
    "merge": "Notes merged",
    "read": "Answer from one chunk",
    "judge": "Judgement",
    "answer": "Answer of one reading",
    "check": "Statement",
    "direct": "Reading of the whole text",
    "demonstration": "Example made from the text",
}
_WORDS = ("text", "reason", "query", "statement", "q", "a")
_FACTS = ("strategy", "label", "path", "verdict")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was finished: a chunk read, a step taken, an answer written."""

    kind: EntryKind
    name: str
    """What kind of step it is, the same for all of a kind: "evidence"; "note" and "answer" otherwise."""
    title: str
    usage: Usage
    part: int = 0
    path: str = ""
    """Which chain it belongs to; empty where there is one."""
    chunks: tuple[int, ...] = ()
    """What was read, as ordinals over the whole run."""
    seconds: float | None = None
    """None where nobody took the time: of answers."""
    text: str = ""
    """What it says that the entry before did not; of notes, the lines that are new."""
    kept: int = 0
    """Lines that were taken over from the note before."""
    dropped: int = 0
    """Lines of the note before that are gone."""
    informative: bool = True
    cause: str | None = None
    """Why it gave nothing; None where it succeeded."""
    evidence: tuple[Span, ...] = ()
    """Sentences that it picked, as places of the document."""
    places: Mapping[Reference, Span] = field(default_factory=dict)
    """Where the sentences stand whose ids `text` holds."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run, ready to be shown."""

    record: RunRecord
    document: Document = field(repr=False)
    plan: RunPlan = field(repr=False)
    answer: Answer | None
    entries: tuple[Entry, ...] = field(repr=False)
    """In the order in which they ended, those of a chain together."""
    outline: Outline | None = field(default=None, repr=False)
    """Of runs that structured the document."""
    checked: tuple[Checked, ...] = ()
    """Of runs that checked statements."""

    @property
    def usage(self) -> Usage:
        """Of the answer, or of what is finished so far."""
        if self.answer is not None:
            return self.answer.usage
        total = Usage()
        for entry in self.entries:
            total = total.merged(entry.usage)
        return total

    @property
    def chunks(self) -> list[Chunk]:
        """Of all parts, in order: an entry's ordinals count them."""
        return [chunk for part in self.plan.parts for chunk in part.chunks]


def cached_share(usage: Usage) -> float | None:
    """Of the prompts' tokens, the share that was not computed, 0..1; None without a prompt."""
    return usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else None


def facts_of(store: RunStore, run_id: str, *, document: Document | None = None) -> RunFacts:
    """What is known of a run; `document` is its document where the caller has it.

    Raises: RunNotFound, StorageError.
    """
    record = store.get(run_id)
    if document is None:
        document = replace(store.document(record.document_sha256), name=record.document)
    plan = store.plan(record.run_id, document)
    journal = store.journal(record.run_id)
    steps = [line for line in journal if isinstance(line, StoredStep)]
    structured = bool(structures_of(steps))
    answer = store.answer(record.run_id)
    checked: list[Checked] = []
    if record.task == "check":
        checked = checked_of(document, plan.parts[0].chunks, record.question or "", steps)
    return RunFacts(
        record=record,
        document=document,
        plan=plan,
        answer=answer,
        entries=tuple(_grouped(_Reader(plan).entries(journal))),
        outline=outline_of(document, plan, steps) if structured else None,
        checked=tuple(checked),
    )


def _grouped(entries: Iterable[Entry]) -> list[Entry]:
    """Chains that were read side by side one after the other; of other chunks read side by side the text's order."""
    order: list[list[Entry]] = []
    chains: dict[tuple[int, str], list[Entry]] = {}
    for entry in entries:
        chain = chains.get((entry.part, entry.path)) if entry.path else None
        if chain is not None:
            chain.append(entry)
        elif not entry.path and order and _beside(order[-1][-1], entry):
            order[-1].append(entry)
        else:
            order.append([entry])
            if entry.path:
                chains[entry.part, entry.path] = order[-1]
    return [entry for group in order for entry in (group if group[0].path else sorted(group, key=lambda e: e.chunks))]


def _beside(one: Entry, other: Entry) -> bool:
    """True for entries of the same kind that read one chunk each."""
    return (one.path, one.part, one.name) == ("", other.part, other.name) and len(one.chunks) == len(other.chunks) == 1


class _Reader:
    """Turns a journal's lines into entries."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._first = [sum(len(p.chunks) for p in plan.parts[:n]) for n in range(len(plan.parts))]
        self._before: dict[tuple[int, str], str] = {}

    def entries(self, journal: Sequence[StoredNote | StoredStep | tuple[int, PartAnswer]]) -> list[Entry]:
        found = []
        for line in journal:
            if isinstance(line, StoredNote):
                found.append(self._note(line))
            elif isinstance(line, StoredStep):
                found.append(self._step(line))
            else:
                part, answer = line
                found.append(
                    self._with_places(Entry("answer", "answer", "Answer", answer.usage, part, text=answer.text))
                )
        return found

    def _note(self, note: StoredNote) -> Entry:
        before = self._before.get((note.part, note.path), "").splitlines()
        self._before[note.part, note.path] = note.text
        lines = note.text.splitlines()
        new = [line for line in lines if line not in before]
        entry = Entry(
            "note",
            "note",
            f"Chunk {self._ordinal(note.part, note.chunk) + 1}",
            note.usage,
            note.part,
            note.path,
            (self._ordinal(note.part, note.chunk),),
            note.seconds,
            text="\n".join(new) if note.informative else "",
            kept=len(lines) - len(new),
            dropped=len([line for line in before if line not in lines]),
            informative=note.informative,
            cause=note.cause,
        )
        return self._with_places(entry)

    def _step(self, step: StoredStep) -> Entry:
        kind, _, rest = step.key.partition("/")
        part = int(rest.split("/")[0]) if rest.split("/")[0].isdecimal() else 0
        part = part if part < len(self._plan.parts) and kind not in {"check", "demonstration"} else 0
        entry = Entry(
            "step",
            kind,
            self._step_title(kind, rest, step),
            step.usage,
            part,
            chunks=step.chunks,
            seconds=step.seconds,
            text=_step_text(kind, step.payload),
            informative=step.cause is None,
            cause=step.cause,
            evidence=tuple(self._evidence(kind, part, step)),
        )
        if kind in {"evidence", "read"}:
            entry = replace(entry, informative=bool(entry.evidence or entry.text))
        return self._with_places(entry)

    def _step_title(self, kind: str, rest: str, step: StoredStep) -> str:
        title = _TITLES.get(kind, kind)
        if kind == "check" and rest.isdecimal():
            return f"{title} {int(rest) + 1}"
        if kind == "answer":
            return f"{title}: {rest.partition('/')[2]}"
        if len(step.chunks) == 1:
            return f"Chunk {step.chunks[0] + 1}: {title[0].lower()}{title[1:]}"
        return title

    def _evidence(self, kind: str, part: int, step: StoredStep) -> Iterable[Span]:
        """The sentences that a step's payload names."""
        payload, chunks = step.payload, self._plan.parts[part].chunks if self._plan.parts else ()
        named: list[Reference] = []
        if kind == "evidence" and step.chunks:
            at = step.chunks[0] - self._first[part] + 1
            named = [Reference(at, sentence) for sentence, _ in payload.get("selected", ())]
        elif kind == "passages":
            for chunk, first, last, _ in payload.get("passages", ()):
                named += [Reference(chunk + 1, n) for n in range(first, last + 1)]
        elif kind in {"check", "demonstration"}:
            named = [Reference(*pair) for pair in payload.get("references", ()) if len(pair) == 2]
        spans = (sentence_at(reference, chunks) for reference in named)
        return [span for span in spans if span is not None]

    def _with_places(self, entry: Entry) -> Entry:
        """The entry with the places of the ids in its text."""
        if entry.part >= len(self._plan.parts):
            return entry
        chunks = self._plan.parts[entry.part].chunks
        found = {reference: sentence_at(reference, chunks) for reference in references(entry.text)}
        return replace(entry, places={r: span for r, span in found.items() if span is not None})

    def _ordinal(self, part: int, chunk: int) -> int:
        return (self._first[part] if part < len(self._first) else 0) + chunk


def _step_text(kind: str, payload: Mapping[str, Any]) -> str:
    """What people can read of a payload; ids and numbers stay out."""
    if kind == "structure" and "structure" in payload:
        structure = Structure.from_json(payload["structure"])
        titles = "\n".join(f"- {aspect.title}" for aspect in structure.aspects)
        return f"{structure.scope}\n{titles}"
    facts = [str(payload[key]) for key in _FACTS if payload.get(key)]
    words = [str(payload[key]) for key in _WORDS if payload.get(key)]
    return "\n".join([*([", ".join(facts).replace("_", " ")] if facts else []), *words])
