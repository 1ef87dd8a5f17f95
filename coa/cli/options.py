"""Options that several commands share, as dataclasses that a command takes whole."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from coa.cli.terminal import Colour

__all__ = ["Book", "CommonOptions", "Format", "OutputOptions", "RunOptions", "expands_options"]


class Format(StrEnum):
    """Values of --format."""

    TEXT = "text"
    MD = "md"
    JSON = "json"
    JSONL = "jsonl"
    HTML = "html"


class NotesMode(StrEnum):
    """Values of --notes."""

    AUTO = "auto"
    PAPER = "paper"
    STRUCTURED = "structured"
    QUOTES = "quotes"


class DemosMode(StrEnum):
    """Values of --demos."""

    NONE = "none"
    RECYCLED = "recycled"


class ChooseMode(StrEnum):
    """Values of --choose."""

    JUDGE = "judge"
    VOTE = "vote"


class PreselectMode(StrEnum):
    """Values of --preselect."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


Book = Annotated[
    str, typer.Argument(metavar="BOOK", help="The document's file; - reads standard input.", show_default=False)
]


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """Of every command that reads settings."""

    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="COA_CONFIG", help="Config file in place of ./coa.yaml."),
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", envvar="COA_PROFILE", help="Profile of the config file to apply."),
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", envvar="COA_QUIET", help="Only errors on stderr.")] = False
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            metavar="",
            show_default=False,
            envvar="COA_VERBOSE",
            help="Say what happens; -vv adds debug logs and tracebacks.",
        ),
    ] = 0
    color: Annotated[Colour, typer.Option(envvar="COA_COLOR", help="Colour and styles on the terminal.")] = Colour.AUTO


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Of commands that print an answer."""

    format: Annotated[Format, typer.Option("--format", "-f", envvar="COA_FORMAT", help="Form of the result.")] = (
        Format.TEXT
    )
    json: Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="Short for --format json.")] = False
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            envvar="COA_OUTPUT",
            help="Write the result to FILE, whole or not at all.",
        ),
    ] = None
    show_notes: Annotated[
        bool, typer.Option("--show-notes", envvar="COA_SHOW_NOTES", help="Show the notes after each chunk, too.")
    ] = False
    no_progress: Annotated[
        bool, typer.Option("--no-progress", envvar="COA_NO_PROGRESS", help="No progress bar on the terminal.")
    ] = False

    @property
    def form(self) -> Format:
        """The format, `--json` counted in."""
        return Format.JSON if self.json else self.format


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Of commands that start a run; None leaves the setting as configured."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            envvar="COA_MODEL",
            help="Model group, catalogue name, GGUF file, or litellm model.",
        ),
    ] = None
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", metavar="NAME", envvar="COA_STRATEGY", help="How the document is read."),
    ] = None
    window: Annotated[
        int | None,
        typer.Option("--window", min=1, metavar="N", envvar="COA_WINDOW", help="Tokens of the model's window."),
    ] = None
    reader: Annotated[
        str | None,
        typer.Option("--reader", metavar="NAME", envvar="COA_READER", help="Reader of the document, such as docling."),
    ] = None
    chunk_tokens: Annotated[
        int | None,
        typer.Option("--chunk-tokens", min=1, metavar="N", envvar="COA_CHUNK_TOKENS", help="Tokens of a chunk."),
    ] = None
    notes: Annotated[
        NotesMode | None,
        typer.Option(
            "--notes",
            envvar="COA_NOTES",
            help="What workers hand on: prose (paper), facts with ids (structured), sentences (quotes; tiny models).",
        ),
    ] = None
    note_tokens: Annotated[
        int | None,
        typer.Option("--note-tokens", min=1, metavar="N", envvar="COA_NOTE_TOKENS", help="Tokens of a note, at most."),
    ] = None
    answer_tokens: Annotated[
        int | None,
        typer.Option(
            "--answer-tokens", min=1, metavar="N", envvar="COA_ANSWER_TOKENS", help="Tokens of the answer, at most."
        ),
    ] = None
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", min=0, metavar="USD", envvar="COA_MAX_COST_USD", help="Stop before spending more."),
    ] = None
    max_tokens_total: Annotated[
        int | None,
        typer.Option(
            "--max-tokens-total",
            min=1,
            metavar="N",
            envvar="COA_MAX_TOKENS_TOTAL",
            help="Stop before using more tokens, in and out.",
        ),
    ] = None
    max_calls: Annotated[
        int | None,
        typer.Option("--max-calls", min=1, metavar="N", envvar="COA_MAX_CALLS", help="Stop before more calls."),
    ] = None
    passes: Annotated[
        int | None,
        typer.Option("--passes", min=1, max=2, metavar="1|2", envvar="COA_PASSES", help="Readings of the chain."),
    ] = None
    demos: Annotated[
        DemosMode | None,
        typer.Option("--demos", envvar="COA_DEMOS", help="Examples made from the text, shown to the chain's agents."),
    ] = None
    paths: Annotated[
        int | None,
        typer.Option(
            "--paths", min=2, max=9, metavar="N", envvar="COA_PATHS", help="Chains of self-consistency and permutation."
        ),
    ] = None
    choose: Annotated[
        ChooseMode | None,
        typer.Option("--choose", envvar="COA_CHOOSE", help="How one of several chains' answers is chosen."),
    ] = None
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, max=5, metavar="N", envvar="COA_ROUNDS", help="Of retrieving, at most (alr2)."),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", min=1, metavar="N", envvar="COA_TOP_K", help="Passages of rag, chunks of a preselection (alr2)."
        ),
    ] = None
    preselect: Annotated[
        PreselectMode | None,
        typer.Option("--preselect", envvar="COA_PRESELECT", help="Whether alr2 reads only the likely chunks."),
    ] = None
    review: Annotated[
        bool | None,
        typer.Option("--review/--no-review", envvar="COA_REVIEW", help="Show the evidence before the answer (alr2)."),
    ] = None
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", envvar="COA_VERIFY", help="Look up each quote that a model wrote."),
    ] = None
    strict: Annotated[
        bool | None,
        typer.Option("--strict/--no-strict", envvar="COA_STRICT", help="Exit 8 where a quote is not in the text."),
    ] = None
    response_cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            envvar="COA_RESPONSE_CACHE",
            help="Whether kept replies are given again, and chunks that were read before are not computed anew.",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", envvar="COA_DRY_RUN", help="Say what it would take, and call nothing."),
    ] = False


def expands_options(command: Callable[..., int]) -> Callable[..., int]:
    """`command` with each parameter whose type is a dataclass spelt out into that class's fields.

    typer reads signatures and knows no option groups; so the shared options are written once.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            groups[parameter.name] = hint
            parameters += _field_parameters(hint)
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def expanded(**values: Any) -> int:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in dataclasses.fields(group)})
        return command(**values)

    del expanded.__dict__["__wrapped__"]
    expanded.__dict__["__signature__"] = inspect.Signature(parameters, return_annotation=int)
    expanded.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
    return expanded


@functools.cache
def _field_parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in dataclasses.fields(group)
    ]
