"""`coa eval generate`: sets of questions hidden in one's own texts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import CommonOptions
from coa.cli.terminal import write_note

if TYPE_CHECKING:
    from coa.config import Settings
    from coa.evaluation.generating import SetWriter

__all__ = ["GenerateOptions", "generate"]


class Kind(StrEnum):
    """What is generated."""

    NEEDLE = "needle"
    THREAD = "thread"
    FACTS = "facts"
    DISTRACTORS = "distractors"


class ThreadOrder(StrEnum):
    """Values of --order."""

    FORWARD = "forward"
    BACKWARD = "backward"
    RANDOM = "random"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """What is hidden where."""

    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", envvar="COA_EVAL_SET", help="A new folder for the set.")
    ] = Path("generated")
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--source", metavar="FILE", envvar="COA_EVAL_SOURCES", help="A text to hide it in; may be repeated."
        ),
    ] = None
    lengths: Annotated[
        str, typer.Option(metavar="N,N", envvar="COA_EVAL_LENGTHS", help="Characters of the texts, before hiding.")
    ] = "8000,32000"
    depths: Annotated[
        str, typer.Option(metavar="N,N", envvar="COA_EVAL_DEPTHS", help="Places in percent (needle, distractors).")
    ] = "0,25,50,75,100"
    times: Annotated[
        int, typer.Option("--times", min=1, metavar="N", envvar="COA_EVAL_TIMES", help="Of each combination.")
    ] = 1
    others: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            envvar="COA_EVAL_OTHERS",
            help="Needles (none) or documents (9) beside the one that is asked for.",
        ),
    ] = None
    hops: Annotated[int, typer.Option(min=1, metavar="N", envvar="COA_EVAL_HOPS", help="Links of a thread.")] = 3
    threads: Annotated[int, typer.Option(min=1, metavar="N", envvar="COA_EVAL_THREADS", help="Threads in a text.")] = 1
    order: Annotated[
        ThreadOrder, typer.Option(envvar="COA_EVAL_ORDER", help="How links of a thread stand in the text.")
    ] = ThreadOrder.ALL
    stories: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="COA_EVAL_STORIES", help="bAbI stories as JSON lines (facts)."),
    ] = None
    questions: Annotated[
        Path | None,
        typer.Option(metavar="DIR", envvar="COA_EVAL_QUESTIONS", help="A set to surround with others (distractors)."),
    ] = None
    language: Annotated[
        str | None, typer.Option(metavar="CODE", envvar="COA_EVAL_LANGUAGE", help="Of the text; guessed otherwise.")
    ] = None
    needle: Annotated[
        str | None, typer.Option(metavar="TEXT", envvar="COA_EVAL_NEEDLE", help="With $key and $value (or $next).")
    ] = None
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", envvar="COA_EVAL_QUESTION", help="With $key in it.")
    ] = None
    seed: Annotated[int, typer.Option(metavar="N", envvar="COA_EVAL_SEED", help="The same one, the same set.")] = 0


def generate(
    ctx: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="What to hide.", show_default=False)],
    *,
    given: GenerateOptions,
    common: CommonOptions,
) -> int:
    """Makes a set for `coa eval run`: needles, threads of them, bAbI facts in a text, or documents among others.

    Taking out what was put in gives the source back; where the answer stands is recorded as evidence.
    """
    from coa.cli.invocation import settings_of
    from coa.errors import ConfigError
    from coa.evaluation.generating import SetWriter

    settings = settings_of(ctx, common).settings
    if given.out.exists() and (not given.out.is_dir() or any(given.out.iterdir())):
        raise ConfigError(f"--out {given.out}: is there and not an empty folder.")
    made = SetWriter(given.out)
    if kind is Kind.DISTRACTORS:
        _distract(made, given)
    else:
        _hide(made, kind, given, settings)
    made.close()
    write_note(f"wrote {made.n_questions} questions over {made.n_documents} documents to {given.out}")
    return 0


def _distract(made: SetWriter, given: GenerateOptions) -> None:
    from coa.errors import ConfigError
    from coa.evaluation.generating import generate_distractors

    if given.questions is None:
        raise ConfigError("distractors need --questions, a folder with questions.jsonl and docs.")
    generate_distractors(
        made,
        given.questions,
        n_others=9 if given.others is None else given.others,
        depths=_shares(given.depths),
        times=given.times,
        language=given.language,
        seed=given.seed,
    )


def _hide(made: SetWriter, kind: Kind, given: GenerateOptions, settings: Settings) -> None:
    from coa.errors import ConfigError
    from coa.evaluation import generating
    from coa.evaluation.needles import Order, wording_for

    lengths = _numbers(given.lengths, "--lengths")
    if min(lengths) < 1:
        raise ConfigError(f"--lengths {given.lengths!r}: a length is above 0.")
    texts, language = _read(given, settings)
    times, seed = given.times, given.seed
    if kind is Kind.FACTS:
        if given.stories is None:
            raise ConfigError("facts need --stories, a file of bAbI stories.")
        generating.generate_facts(
            made, texts, given.stories, lengths=lengths, times=times, language=language, seed=seed
        )
        return
    wording = wording_for(language, needle=given.needle, asked=given.question)
    if kind is Kind.NEEDLE:
        generating.generate_needles(
            made,
            texts,
            lengths=lengths,
            depths=_shares(given.depths),
            times=times,
            n_others=given.others or 0,
            language=language,
            wording=wording,
            seed=seed,
        )
        return
    orders: tuple[Order, ...] = ("forward", "backward", "random")
    generating.generate_threads(
        made,
        texts,
        lengths=lengths,
        hops=given.hops,
        n_threads=given.threads,
        orders=[order for order in orders if given.order in {ThreadOrder.ALL, order}],
        times=times,
        language=language,
        wording=wording,
        seed=seed,
    )


def _read(given: GenerateOptions, settings: Settings) -> tuple[list[str], str | None]:
    """The readable texts of the sources, and their language."""
    from coa.cli.book import read_book
    from coa.errors import ConfigError
    from coa.evaluation.haystack import readable_text

    if not given.source:
        raise ConfigError("there is no text to hide anything in.", hint="Give --source FILE.")
    documents = [read_book(str(path), settings) for path in given.source]
    return [readable_text(d) for d in documents], given.language or documents[0].language


def _numbers(text: str, option: str) -> list[int]:
    from coa.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text!r}: expected whole numbers with commas between them.") from None


def _shares(text: str) -> list[float]:
    from coa.errors import ConfigError

    found = _numbers(text, "--depths")
    if not all(0 <= n <= 100 for n in found):
        raise ConfigError(f"--depths {text!r}: a depth is between 0 and 100.")
    return [n / 100 for n in found]
