"""Kills coa at random moments and resumes it: the answer has to be the same, and no chunk may be paid for twice.

    python tests/tools/kill_resume.py [--kills 20] [--seed 1] [--chapters 4]

One engine serves all runs, behind a proxy that writes down each call. Half of the kills come at a random moment
of the run; the other half within milliseconds of a reply, where the note is on its way to the disk. Prints a
Markdown table; the exit code is 1 where a run did not come out as the one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coa.llm.engine_process import EngineProcess
from coa.reading import reading_prefix
from coa.runs import RunRecord, RunStore
from coa.testing.models import test_model_path
from tests.tools.counting_proxy import Call, CountingProxy
from tests.tools.live import MODEL, REPOSITORY, CoaProcess, Finished, engine_counter, write_config

BOOK = REPOSITORY / "examples" / "novel" / "the-salt-ledger.txt"
QUESTION = "For how many years had Bastian Orrow kept the Tide Clock when he died?"
LIMITS = ["--no-cache", "--notes", "paper", "--chunk-tokens", "700", "--note-tokens", "40", "--answer-tokens", "40"]
OUTPUT = ["--json", "--show-notes", "--no-progress", "--quiet"]

_WINDOW = 2048
_AFTER_REPLY_S = 0.03
"""How long after a reply a kill may come: storing a note and the checkpoint takes some milliseconds."""
_MOST_KILLS_OF_A_RUN = 3
_POLL_S = 0.001
_DIFFERS = ("run_id", "seconds")
"""Keys of an answer that are no two runs' same."""

KillKind = Literal["moment", "reply"]


@dataclass(frozen=True, slots=True)
class Reference:
    """The run that nobody disturbed."""

    result: dict[str, Any]
    seconds: float
    setup_replies: int
    """Replies of the engine before the first call: the window, counted tokens."""
    prefixes: list[str]
    """Of each chunk; a prompt that begins with one reads that chunk."""
    prompt_tokens: list[int]
    """Of each chunk's call, and of the manager's as the last."""

    @property
    def n_chunks(self) -> int:
        return len(self.prefixes)

    def part_of(self, call: Call) -> int:
        """The chunk that a call reads; the number of chunks for the manager's."""
        return next((i for i, prefix in enumerate(self.prefixes) if call.prompt.startswith(prefix)), self.n_chunks)


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL and what it met."""

    run: int
    kind: KillKind
    seconds: float
    """Of that process's life."""
    state: str
    """Of the run on disk; "none yet" where the kill came before it."""
    stored: frozenset[int]
    """What was on disk: chunks, and the number of chunks for the manager's answer."""
    n_calls: int
    """Sent by then, in this trial."""
    unstored_replies: int
    """Replies that the engine had given and the disk did not hold."""


@dataclass
class Trial:
    """One run with its kills, resumed until it was done."""

    kills: list[Kill] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    engine_tokens: int = 0


class Bench:
    """One engine, one book, one configuration."""

    def __init__(self, folder: Path, engine: EngineProcess, proxy: CountingProxy, *, chapters: int) -> None:
        self._folder, self._engine, self._proxy = folder, engine, proxy
        self._config = write_config(folder / "coa.yaml", base_url=f"{proxy.root_url}/v1", api_key=engine.api_key)
        self._book = folder / "book.txt"
        self._book.write_text(_first_chapters(BOOK.read_text(encoding="utf-8"), chapters), encoding="utf-8")

    def reference(self) -> Reference:
        """The undisturbed run."""
        home = self._folder / "reference"
        setup = -1
        process = self._ask(home)
        while not process.ended():
            if setup < 0 and self._proxy.calls:
                setup = self._proxy.n_others
            time.sleep(_POLL_S)
        ended = process.wait()
        if ended.code != 0:
            raise RuntimeError(f"the undisturbed run failed with {ended.code}: {ended.err}")
        result = json.loads(ended.out)
        store = RunStore(home)
        chunks = store.plan(result["run_id"], store.document(result["document_sha256"])).parts[0].chunks
        prompts = [n.usage.prompt_tokens for n in store.stored_notes(result["run_id"])]
        prompts.append(store.part_answers(result["run_id"])[0].usage.prompt_tokens)
        prefixes = [reading_prefix(c.text, c.sentences, offset=c.span.start) for c in chunks]
        return Reference(result, ended.seconds, setup, prefixes, prompts)

    def trial(self, number: int, n_kills: int, reference: Reference, rng: random.Random) -> Trial:
        """One run that is killed `n_kills` times, or until it ends before the next kill."""
        home, trial = self._home(number), Trial()
        first, tokens = len(self._proxy.calls), self._tokens()
        for _ in range(n_kills):
            process, began = self._next_process(home), len(self._proxy.calls)
            left = reference.seconds * (1 - len(_stored(home, reference)) / (reference.n_chunks + 1))
            kind = self._wait_for_moment(process, reference, began, left, rng)
            if process.ended():
                break
            seconds = process.age_s
            process.kill()
            trial.kills.append(self._seen(number, kind, seconds, first, reference))
        ended = self._next_process(home).wait()
        trial.calls = self._proxy.calls[first:]
        trial.engine_tokens = self._tokens() - tokens
        trial.faults += _compared(ended, reference) + _accounted(trial, reference)
        again = CoaProcess(["resume", "--last", *OUTPUT], home=home, config=self._config).wait()
        trial.faults += [f"printed again: {f}" for f in _compared(again, reference)]
        if len(self._proxy.calls) > first + len(trial.calls):
            trial.faults.append("a finished run was paid for again")
        return trial

    def _ask(self, home: Path) -> CoaProcess:
        arguments = ["ask", str(self._book), QUESTION, *LIMITS, *OUTPUT]
        return CoaProcess(arguments, home=home, config=self._config)

    def _next_process(self, home: Path) -> CoaProcess:
        """The run's beginning, or its resumption once it exists."""
        if not RunStore(home).list():
            return self._ask(home)
        return CoaProcess(["resume", "--last", *OUTPUT], home=home, config=self._config)

    def _wait_for_moment(
        self, process: CoaProcess, reference: Reference, began: int, left: float, rng: random.Random
    ) -> KillKind:
        """Returns when it is time to kill, or when the process has ended."""
        if rng.random() < 0.5:
            moment = rng.uniform(0.0, left)
            while process.age_s < moment and not process.ended():
                time.sleep(_POLL_S)
            return "moment"
        wanted, others = (
            rng.randint(0, max(1, round(left / reference.seconds * reference.n_chunks))),
            self._proxy.n_others,
        )
        delay = rng.uniform(0.0, _AFTER_REPLY_S)
        while not process.ended():
            n_replied = sum(c.replied is not None for c in self._proxy.calls[began:])
            ready = n_replied >= wanted if wanted else self._proxy.n_others - others >= reference.setup_replies
            if ready:
                time.sleep(delay)
                break
            time.sleep(_POLL_S)
        return "reply"

    def _seen(self, run: int, kind: KillKind, seconds: float, first: int, reference: Reference) -> Kill:
        calls, home = self._proxy.calls[first:], self._home(run)
        stored = _stored(home, reference)
        replied = {reference.part_of(c) for c in calls if c.replied is not None}
        state = next((r.state for r in RunStore(home).list()), "none yet")
        return Kill(run, kind, seconds, state, stored, len(calls), len(replied - stored))

    def _home(self, run: int) -> Path:
        return self._folder / f"run-{run}"

    def _tokens(self) -> int:
        """What the engine computed, once it has given up the work that nobody waits for."""
        root, key = self._engine.root_url, self._engine.api_key
        while engine_counter(root, key, "requests_processing"):
            time.sleep(0.05)
        return engine_counter(root, key, "prompt_tokens_total")


def sent_again(trial: Trial, reference: Reference) -> list[int]:
    """For each kill: the calls after it that ask for what the disk held when it came."""
    parts = [reference.part_of(c) for c in trial.calls]
    return [sum(p in kill.stored for p in parts[kill.n_calls :]) for kill in trial.kills]


def _stored(home: Path, reference: Reference) -> frozenset[int]:
    store = RunStore(home)
    runs: list[RunRecord] = store.list()
    if not runs:
        return frozenset()
    chunks = {n.chunk for n in store.stored_notes(runs[0].run_id)}
    return frozenset(chunks | ({reference.n_chunks} if store.part_answers(runs[0].run_id) else set()))


def _compared(ended: Finished, reference: Reference) -> list[str]:
    """In what a finished run differs from the undisturbed one."""
    if ended.code != 0:
        return [f"exit code {ended.code}: {ended.err.strip()[-300:]}"]
    found, wanted = json.loads(ended.out), reference.result
    keys = [k for k in wanted.keys() | found.keys() if k not in (*_DIFFERS, "usage")]
    faults = [f"{k} differs: {found.get(k)!r}" for k in sorted(keys) if found.get(k) != wanted.get(k)]
    usage = {k: v for k, v in found["usage"].items() if k != "seconds"}
    if any(wanted["usage"][k] != v for k, v in usage.items()):
        faults.append(f"usage differs: {usage}")
    coverage = found["coverage"]
    if coverage["read"] != coverage["chunks"] or coverage["chunks"] != reference.n_chunks:
        faults.append(f"coverage {coverage}")
    return faults


def _accounted(trial: Trial, reference: Reference) -> list[str]:
    """Whether the engine computed no more than the calls that the proxy saw, and no finished chunk again."""
    faults = []
    if again := sum(sent_again(trial, reference)):
        faults.append(f"{again} calls for chunks that were on disk")
    tokens = [reference.prompt_tokens[reference.part_of(c)] for c in trial.calls]
    completed = sum(t for t, c in zip(tokens, trial.calls, strict=True) if c.replied is not None)
    if not completed <= trial.engine_tokens <= sum(tokens):
        faults.append(f"the engine computed {trial.engine_tokens} tokens, not {completed} to {sum(tokens)}")
    replied = {reference.part_of(c) for c in trial.calls if c.replied is not None}
    if replied != set(range(reference.n_chunks + 1)):
        faults.append(f"replies for {sorted(replied)} alone")
    return faults


def _first_chapters(text: str, n: int) -> str:
    starts = [at for at in range(len(text)) if text.startswith("\nCHAPTER ", at)]
    return text[: starts[n]] if n < len(starts) else text


def table(trials: Sequence[Trial], reference: Reference) -> str:
    """Markdown: a line for each kill, with the run's own figures on its last one."""
    lines = [
        "| kill | run | at | after (s) | chunks stored | run on disk | replies not yet stored "
        "| sent again though stored | calls of the run | same answer |",
        "| --: | --: | --- | --: | --: | --- | --: | --: | --: | --- |",
    ]
    number = 0
    for trial in trials:
        for kill, again in zip(trial.kills, sent_again(trial, reference), strict=True):
            number += 1
            done = len(kill.stored - {reference.n_chunks})
            stored = f"{done}/{reference.n_chunks}" + (" + answer" if reference.n_chunks in kill.stored else "")
            last = kill is trial.kills[-1]
            total, same = (str(len(trial.calls)), "no" if trial.faults else "yes") if last else ("", "")
            lines.append(
                f"| {number} | {kill.run} | {kill.kind} | {kill.seconds:.2f} | {stored} | {kill.state} "
                f"| {kill.unstored_replies} | {again} | {total} | {same} |"
            )
    return "\n".join(lines)


def summary(trials: Sequence[Trial], reference: Reference) -> str:
    """The sums, one a line."""
    kills = [k for t in trials for k in t.kills]
    calls = sum(len(t.calls) for t in trials)
    needed = len(trials) * (reference.n_chunks + 1)
    cut = sum(c.replied is None for t in trials for c in t.calls)
    return "\n".join(
        [
            f"undisturbed: {reference.n_chunks} chunks, {reference.n_chunks + 1} calls, "
            f"{sum(reference.prompt_tokens)} prompt tokens, {reference.seconds:.1f} s",
            f"{len(kills)} kills in {len(trials)} runs; before a run existed: "
            f"{sum(k.state == 'none yet' for k in kills)}",
            f"calls: {calls}; needed without kills: {needed}; cut by a kill: {cut}; "
            f"replied, but killed before the note was stored: {calls - needed - cut}",
            f"calls for chunks whose notes were stored: {sum(sum(sent_again(t, reference)) for t in trials)}",
            f"prompt tokens the engine computed: {sum(t.engine_tokens for t in trials)}; "
            f"without kills: {len(trials) * sum(reference.prompt_tokens)}",
            f"faults: {sum(len(t.faults) for t in trials)}",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where something was lost, changed or paid twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chapters", type=int, default=4, help="of the example novel")
    args = parser.parse_args(arguments)
    rng = random.Random(args.seed)
    trials: list[Trial] = []
    with (
        tempfile.TemporaryDirectory(prefix="coa-kills-") as folder,
        EngineProcess(test_model_path(), alias=MODEL, n_ctx=_WINDOW) as engine,
        CountingProxy(engine.root_url) as proxy,
    ):
        bench = Bench(Path(folder), engine, proxy, chapters=args.chapters)
        reference = bench.reference()
        while (left := args.kills - sum(len(t.kills) for t in trials)) > 0:
            n_kills = min(left, rng.choice([1, 1, 2, _MOST_KILLS_OF_A_RUN]))
            trials.append(bench.trial(len(trials) + 1, n_kills, reference, rng))
            for fault in trials[-1].faults:
                print(f"run {len(trials)}: {fault}", file=sys.stderr, flush=True)
    print(f"{table(trials, reference)}\n\n{summary(trials, reference)}")
    return 1 if any(t.faults for t in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
