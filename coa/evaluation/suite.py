"""Suites: which sets are asked, by which arms, and what is scored; a YAML file.

    name: my documents
    sets:
      - {name: contracts, folder: data/contracts, limit: 20}
      - {name: hotpotqa, longbench: data/hotpotqa.jsonl, limit: 50}
    arms:
      - strategies: [chain, alr2, rag]
        models: [openai/gpt-4o-mini]
        options: {plain: {}, structured: {notes: structured}}
      - controls: [closed_book, full_context, bm25, single_chunk]

Every strategy (or control) of an entry is run with every model and every set of options of it. Paths are relative to
the suite's file; `$NAME` and `${NAME}` in them are variables of the environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coa.config import Settings
from coa.errors import ConfigError
from coa.evaluation.folders import joined, load_folder
from coa.evaluation.locating import EvidenceForm
from coa.evaluation.published import FORMATS, load_published
from coa.evaluation.questions import Question, QuestionSet
from coa.evaluation.scoring import check_metrics
from coa.wiring import RUN_SETTINGS

__all__ = ["CONTROLS", "Arm", "SetEntry", "Suite", "arms_of", "load_suite", "question_sets"]

CONTROLS = ("closed_book", "full_context", "bm25", "single_chunk")
"""Arms that are no strategies: what a strategy has to beat to be worth its cost."""
_SAFE_NAME = re.compile(r"[\w .+@=-]+")
_NO_ANSWERS = frozenset({"check", "outline"})
"""Strategies that are not asked questions."""
_OWN = frozenset({"home", "model", "strategy", "max_calls", "max_tokens_total", "max_cost_usd", "review", "strict"})
"""Settings that arms say in other words, or that would end an evaluation half way."""


class SetEntry(BaseModel):
    """A set of questions, and which of them are asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    folder: Path | None = None
    longbench: Path | None = None
    leval: Path | None = None
    ruler: Path | None = None
    qmsum: Path | None = None
    squality: Path | None = None
    nocha: Path | None = None
    language: str | None = None
    """ISO 639-1; None goes by each document."""
    metrics: list[str] | None = None
    """The one that counts first; None takes what fits the set."""
    evidence: EvidenceForm = "auto"
    """Of a folder."""
    limit: int | None = Field(default=None, ge=1)
    """Questions that are drawn, from as many documents as there are; both claims of a pair count as one."""
    seed: int = 0
    """Of the drawing."""
    kinds: list[str] | None = None
    documents: list[str] | None = None
    """Their ids; None is all."""
    longest: int | None = Field(default=None, ge=1)
    """Characters: longer documents and their questions are left out."""
    join: int | Literal["all"] | None = None
    """Documents that are joined into one before anything is asked."""
    instruction: str = ""
    """What is added to each question."""

    @model_validator(mode="after")
    def _one_source(self) -> SetEntry:
        given = [form for form in ("folder", *FORMATS) if getattr(self, form) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of folder, {', '.join(sorted(FORMATS))}; found {len(given)}")
        if not _SAFE_NAME.fullmatch(self.name):
            raise ValueError("a name holds letters, digits, blanks and . + @ = - _")
        return self

    @property
    def source(self) -> tuple[str, Path]:
        """The format and the path."""
        form = next(form for form in ("folder", *FORMATS) if getattr(self, form) is not None)
        return form, getattr(self, form)


class ArmEntry(BaseModel):
    """Arms: each strategy or control with each model and each set of options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategies: list[str] = Field(default_factory=list)
    controls: list[Literal["closed_book", "full_context", "bm25", "single_chunk"]] = Field(default_factory=list)
    models: list[str] = Field(default_factory=list)
    """Empty takes the one that is configured."""
    options: dict[str, dict[str, Any]] = {"": {}}
    """Settings by the name that the arm gets for them."""

    @model_validator(mode="after")
    def _something(self) -> ArmEntry:
        if not self.strategies and not self.controls:
            raise ValueError("give strategies or controls")
        if not self.options:
            raise ValueError("options: is empty; leave it away")
        wrong = sorted(_NO_ANSWERS & set(self.strategies))
        if wrong:
            raise ValueError(f"{wrong[0]} answers no questions")
        return self


class JudgeEntry(BaseModel):
    """Who judges, where a score needs that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    """A chat model, as --model takes it."""
    nli: str | None = None
    """A Hugging Face NLI model, for citations."""


class Suite(BaseModel):
    """What a suite's file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    sets: list[SetEntry] = Field(min_length=1)
    arms: list[ArmEntry] = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    """For every arm; an arm's options go before."""
    judge: JudgeEntry = JudgeEntry()
    seed: int = 0
    """Of bootstraps and permutations."""
    resamples: int = Field(default=2000, ge=100, le=100_000)

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [entry.name for entry in self.sets]
        if len(set(names)) < len(names):
            raise ValueError("sets: two have the same name")
        return self


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of answering."""

    name: str
    """Unique within the suite."""
    strategy: str | None
    control: str | None
    model: str | None
    """None is the configured one."""
    options: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Of everything that the arm does, its name apart."""
        told = [self.strategy, self.control, self.model, sorted(self.options.items())]
        return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]


def load_suite(path: Path) -> Suite:
    """The suite in a file. Raises: ConfigError, with the key in its message."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from error
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}.") from None
    for entry in suite.sets:
        check_metrics(entry.metrics or (), f"{path}: sets.{entry.name}.metrics")
    arms_of(suite)
    return suite


def arms_of(suite: Suite) -> list[Arm]:
    """The suite's arms, in its order. Raises: ConfigError for options that are no settings, or arms that are alike."""
    n_models = len({model for entry in suite.arms for model in entry.models or [None]})  # type: ignore[list-item]
    found: list[Arm] = []
    for entry in suite.arms:
        for strategy, control in [*((s, None) for s in entry.strategies), *((None, c) for c in entry.controls)]:
            for model in entry.models or [None]:  # type: ignore[list-item]
                for name, options in entry.options.items():
                    merged = {**suite.settings, **options}
                    _check_options(merged, name)
                    label = (strategy or control or "") + (f"+{name}" if name else "")
                    label += f"@{model}" if n_models > 1 and model else ""
                    found.append(Arm(label, strategy, control, model, merged))
    names = [arm.name for arm in found]
    twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if twice is not None:
        raise ConfigError(f"two arms are called {twice!r}.", hint="Give their options different names.")
    return found


def question_sets(
    suite: Suite, folder: Path, *, limit: int | None = None, only: Sequence[str] = ()
) -> list[QuestionSet]:
    """The suite's sets with the questions that are asked; paths are relative to `folder`.

    `limit` is the most of each set, `only` the names of the sets that are wanted (all where empty).

    Raises: ConfigError, DocumentError.
    """
    unknown = set(only) - {entry.name for entry in suite.sets}
    if unknown:
        raise ConfigError(f"the suite has no set {sorted(unknown)[0]!r}.")
    return [_loaded(entry, folder, limit) for entry in suite.sets if not only or entry.name in only]


def _loaded(entry: SetEntry, folder: Path, limit: int | None) -> QuestionSet:
    form, given = entry.source
    path = folder / Path(_expanded(str(given), entry.name)).expanduser()
    if not path.exists():
        raise ConfigError(f"sets.{entry.name}: {path} does not exist.")
    if form == "folder":
        found = load_folder(path, name=entry.name, language=entry.language, evidence=entry.evidence)
    else:
        found = load_published(form, path, name=entry.name, language=entry.language)
    if entry.join is not None:
        found = joined(found, None if entry.join == "all" else entry.join)
    wanted = [
        q
        for q in found.questions
        if (entry.kinds is None or q.kind in entry.kinds)
        and (entry.documents is None or q.doc_id in entry.documents)
        and (entry.longest is None or len(found.documents[q.doc_id].text) <= entry.longest)
    ]
    if not wanted:
        raise ConfigError(f"sets.{entry.name}: no question is left after kinds, documents and longest.")
    most = min((n for n in (entry.limit, limit) if n is not None), default=None)
    drawn = wanted if most is None else _drawn(wanted, most, random.Random(f"{entry.seed}/{entry.name}"))
    if entry.instruction:
        drawn = [replace(q, instruction=" ".join(filter(None, [q.instruction, entry.instruction]))) for q in drawn]
    documents = {q.doc_id: found.documents[q.doc_id] for q in drawn}
    names = tuple(entry.metrics) if entry.metrics is not None else found.metrics
    check_metrics(names, f"sets.{entry.name}")
    return replace(found, questions=tuple(drawn), documents=documents, metrics=names)


def _drawn(questions: Sequence[Question], most: int, rng: random.Random) -> list[Question]:
    """`most` questions or pairs, taken in turn from the documents in a random order; in the order of the set."""
    units: dict[str, dict[str, list[Question]]] = {}
    for question in questions:
        units.setdefault(question.doc_id, {}).setdefault(question.pair or question.id, []).append(question)
    piles = [list(of_document.values()) for of_document in units.values()]
    rng.shuffle(piles)
    for pile in piles:
        rng.shuffle(pile)
    chosen: set[str] = set()
    for n, unit in enumerate(_in_turn(piles)):
        if n == most:
            break
        chosen |= {question.id for question in unit}
    return [question for question in questions if question.id in chosen]


def _in_turn(piles: Sequence[list[list[Question]]]) -> Iterator[list[Question]]:
    for depth in range(max(map(len, piles), default=0)):
        for pile in piles:
            if depth < len(pile):
                yield pile[depth]


def _expanded(path: str, name: str) -> str:

    try:
        return Template(path).substitute(os.environ)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"sets.{name}: the path {path!r} names the variable {error}, which is not set.") from error


def _check_options(options: Mapping[str, Any], name: str) -> None:
    allowed = (RUN_SETTINGS | {"window", "roles", "retries", "timeout_s", "response_cache"}) - _OWN
    wrong = sorted(options.keys() - allowed)
    if wrong:
        raise ConfigError(
            f"arms: options {name!r}: {wrong[0]!r} cannot be set there.",
            hint=f"Allowed are {', '.join(sorted(allowed))}.",
        )
    try:
        Settings.model_validate(options)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise ConfigError(f"arms: options {name!r}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}.") from None
