"""`coa eval run|report|generate`: strategies measured on one's own questions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.eval_generate import generate
from coa.cli.options import CommonOptions, expands_options
from coa.cli.terminal import write_error, write_file, write_note, write_result

if TYPE_CHECKING:
    from coa.config import Settings
    from coa.evaluation.ledger import Ledger
    from coa.evaluation.running import Evaluation, Progress
    from coa.evaluation.summary import Summary
    from coa.evaluation.verdicts import Threshold
    from coa.stopping import StopSignal

__all__ = ["AskOptions", "VerdictOptions", "app"]

app = typer.Typer(help="Measures strategies on questions with known answers.", no_args_is_help=True)

_BELOW = 8


@dataclass(frozen=True, slots=True)
class VerdictOptions:
    """What scores are held against, and how they are shown."""

    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            metavar="[SET/][ARM:]SCORE=VALUE",
            envvar="COA_EVAL_FAIL_UNDER",
            help="Exit 8 where a score is lower; may be repeated.",
        ),
    ] = None
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="DIR", envvar="COA_EVAL_BASELINE", help="An earlier evaluation to compare with."
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0,
            max=1,
            metavar="VALUE",
            envvar="COA_EVAL_MAX_DROP",
            help="Exit 8 where a score is lower than the baseline's by more.",
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="The scores as JSON.")] = False

    def thresholds(self) -> list[Threshold]:
        """What --fail-under says. Raises: ConfigError."""
        from coa.errors import ConfigError
        from coa.evaluation.verdicts import threshold

        if self.max_drop is not None and self.baseline is None:
            raise ConfigError("--max-drop needs a --baseline.")
        return [threshold(text) for text in self.fail_under or ()]


@dataclass(frozen=True, slots=True)
class AskOptions:
    """What is asked, and what it may take."""

    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", envvar="COA_EVAL_OUT", help="Where everything is kept, to go on with."),
    ] = Path("eval")
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", envvar="COA_MODEL", help="Of arms that name none."),
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", envvar="COA_EVAL_LIMIT", help="Questions of each set, at most.")
    ] = None
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME", envvar="COA_EVAL_SETS", help="Only this set.")
    ] = None
    arms: Annotated[
        list[str] | None, typer.Option("--arm", metavar="NAME", envvar="COA_EVAL_ARMS", help="Only this arm, for now.")
    ] = None
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, metavar="N", envvar="COA_EVAL_JOBS", help="Questions at once.")
    ] = 1
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", envvar="COA_EVAL_RETRY_FAILED", help="Ask again what had no answer.")
    ] = False
    max_calls: Annotated[
        int | None, typer.Option(min=1, metavar="N", envvar="COA_MAX_CALLS", help="Of all runs together.")
    ] = None
    max_tokens_total: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", envvar="COA_MAX_TOKENS_TOTAL", help="In and out, of all runs together."),
    ] = None
    max_cost: Annotated[
        float | None, typer.Option(min=0, metavar="USD", envvar="COA_MAX_COST_USD", help="Of all runs together.")
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", envvar="COA_DRY_RUN", help="Say what would be asked, and ask nothing.")
    ] = False


def run(
    ctx: typer.Context,
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="The suite's YAML file.", show_default=False)],
    *,
    asked: AskOptions,
    verdict: VerdictOptions,
    common: CommonOptions,
) -> int:
    """Asks the questions of SUITE with each of its arms, and scores the answers.

    Stopped or killed it goes on where it was when it is started again. Writes report.html and report.md into the
    folder of --out.
    """
    from coa.cli.invocation import invocation_of, settings_of
    from coa.evaluation.ledger import Ledger
    from coa.evaluation.running import Evaluation
    from coa.evaluation.suite import load_suite, question_sets
    from coa.llm.budget import Budget
    from coa.stopping import StopSignal

    settings = settings_of(ctx, common, overrides={"model": asked.model}).settings
    loaded, thresholds, ledger, stop = load_suite(suite), verdict.thresholds(), Ledger(asked.out), StopSignal()
    made = Evaluation(
        loaded,
        question_sets(loaded, suite.resolve().parent, limit=asked.limit, only=asked.sets or ()),
        settings,
        ledger,
        budget=Budget(asked.max_calls, asked.max_tokens_total, asked.max_cost),
        jobs=asked.jobs,
        retry_failed=asked.retry_failed,
        stop=stop,
        on_progress=(lambda progress: None) if invocation_of(ctx).quiet else _progress(),
    )
    if asked.dry_run:
        write_result(_planned(made, settings))
        return 0
    with ledger.locked():
        made.describe()
        code = _run(made, stop, asked.arms or [])
        summary = _written(ledger, verdict, html=asked.out / "report.html", markdown=asked.out / "report.md")
    return code or _held_against(summary, thresholds, verdict)


def report(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an evaluation.", show_default=False)],
    *,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="COA_EVAL_HTML", help="Where the page goes; DIR/report.html by default."),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--md", metavar="FILE", envvar="COA_EVAL_MD", help="Where the tables go; DIR/report.md."),
    ] = None,
    verdict: VerdictOptions,
    common: CommonOptions,
) -> int:
    """Writes the report of an evaluation, finished or not: one HTML file, and Markdown. Makes no call."""
    from coa.cli.invocation import settings_of
    from coa.evaluation.ledger import Ledger

    settings_of(ctx, common)
    thresholds = verdict.thresholds()
    html, markdown = html or folder / "report.html", markdown or folder / "report.md"
    summary = _written(Ledger(folder), verdict, html=html, markdown=markdown)
    return _held_against(summary, thresholds, verdict)


def _run(made: Evaluation, stop: StopSignal, arms: list[str]) -> int:
    """Exit code of the asking; what was asked is kept whatever it is."""
    import asyncio

    from coa.cli.stopping import Stopping
    from coa.errors import BudgetExceeded, CoaError, ModelError, RunDrained

    async def running() -> None:
        stopping.attach(stop)
        await made.run(only=arms)

    with Stopping(resume_command=lambda: "the same command") as stopping:
        try:
            asyncio.run(running())
        except RunDrained:
            pass
        except (asyncio.CancelledError, KeyboardInterrupt):
            if stopping.received is None:
                raise
        except (BudgetExceeded, ModelError) as error:
            write_error(str(error))
            write_note("what was answered is kept; start the same command again to go on")
            return error.exit_code
        except CoaError:
            write_note("what was answered is kept; start the same command again to go on")
            raise
        if stop.requested or stopping.received is not None:
            write_note("stopped; what was answered is kept; start the same command again to go on")
            return stopping.exit_code
    return 0


def _progress() -> Callable[[Progress], None]:
    """Tells of each item on stderr: on one line that is written over on a terminal, else a line for every tenth."""
    terminal = sys.stderr.isatty()

    def tell(progress: Progress) -> None:
        item = progress.item
        where = f"{progress.done}/{progress.total} {item.arm.name} {item.set.name}"
        if progress.failed is not None:
            write_note(("\r\x1b[2K" if terminal else "") + f"{where} {item.question.id}: {progress.failed}")
        elif terminal:
            sys.stderr.write(
                f"\r\x1b[2K{where}, {progress.spent.calls} calls" + ("\n" * (progress.done == progress.total))
            )
            sys.stderr.flush()
        elif progress.done % 10 == 0 or progress.done == progress.total:
            write_note(f"{where}, {progress.spent.calls} calls")

    return tell


def _planned(made: Evaluation, settings: Settings) -> str:
    """What would be asked, and how much of it has a result."""
    from coa.cli.render import table_text

    done = made.n_finished()
    rows = [(one.name, str(len(one.questions)), str(len(one.documents)), ", ".join(one.metrics)) for one in made.sets]
    arms = [(arm.name, arm.model or settings.model, str(dict(arm.options) or "")) for arm in made.arms]
    return (
        table_text(rows, header=("SET", "QUESTIONS", "DOCUMENTS", "SCORES"))
        + "\n"
        + table_text(arms, header=("ARM", "MODEL", "OPTIONS"))
        + f"\n{len(made.items)} answers, {done} of them there already\n"
    )


def _written(ledger: Ledger, verdict: VerdictOptions, *, html: Path, markdown: Path) -> Summary:
    """Writes the scores and the reports, and shows the scores."""
    from coa.cli.render import to_json
    from coa.evaluation.ledger import Ledger
    from coa.evaluation.report import report_html
    from coa.evaluation.report_markdown import report_markdown, scores_markdown
    from coa.evaluation.summary import summarise
    from coa.evaluation.verdicts import changes

    summary = summarise(ledger)
    changed = [] if verdict.baseline is None else changes(summary, summarise(Ledger(verdict.baseline)))
    ledger.save_summary(summary.to_json())
    write_file(html, report_html(summary, changed))
    write_file(markdown, report_markdown(summary, changed))
    write_result(to_json(summary.to_json()) if verdict.as_json else scores_markdown(summary))
    if summary.missing:
        write_note(f"answers still missing: {summary.missing}")
    write_note(f"wrote {html} and {markdown}")
    return summary


def _held_against(summary: Summary, thresholds: Sequence[Threshold], verdict: VerdictOptions) -> int:
    """8 where a score falls short, else 0."""
    from coa.evaluation.ledger import Ledger
    from coa.evaluation.summary import summarise
    from coa.evaluation.verdicts import changes, fallen_back, fallen_short

    told = fallen_short(summary, thresholds)
    if verdict.max_drop is not None and verdict.baseline is not None:
        told += fallen_back(changes(summary, summarise(Ledger(verdict.baseline))), verdict.max_drop)
    for line in told:
        write_error(line)
    return _BELOW if told else 0


for _command in (run, report, generate):
    app.command()(expands_options(_command))
