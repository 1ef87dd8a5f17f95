"""Chains over a server that goes wrong in a tenth of its calls: does every run end as it should?

    python tests/tools/fault_seeds.py [--seeds 20] [--chunks 50] [--each]

Each seed is a run over about so many chunks through coa's API, with faults of every passing kind at random; --each
gives every kind a run of its own at the full rate. A run is right when it ends complete, or partial with every
chunk accounted for; when no prompt was sent more often than the retries allow; and when no note comes from a
reply that was cut off. Prints one line a run; the exit code says whether all were right.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from coa.api import Session
from coa.config import Settings
from coa.documents import read_document
from coa.errors import ModelError
from coa.testing.fault_server import ChatRequest, FaultKind, Faults, FaultServer
from coa.types import Answer, Document

RATE = 0.1
RETRIES = 3
QUESTION = "Where did Ada hide the brass key?"
END = "and that is all of it."
# A wrong key is no passing fault: the run stops there, and rightly.
KINDS: tuple[FaultKind, ...] = tuple(kind for kind in get_args(FaultKind) if kind != "401")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run."""

    name: str
    problems: tuple[str, ...]
    complete: bool
    chunks: int
    read: int
    calls: int
    needed: int
    faults: int
    seconds: float

    def __str__(self) -> str:
        """One line."""
        state = "; ".join(self.problems) or ("complete" if self.complete else "partial")
        figures = f"{self.read}/{self.chunks} read, {self.calls} calls for {self.needed}, {self.faults} faults"
        return f"{self.name:<20} {figures}, {self.seconds:.1f} s: {state}"


def document_of(n_chunks: int) -> Document:
    """A diary of about so many chunks of `settings_for`."""
    days = (
        f"On day {n} the crew mended sail {n}. The wind of day {n} turned to the north." for n in range(n_chunks * 10)
    )
    return read_document("\n".join(days).encode(), name="voyage.txt")


def settings_for(home: Path, server: FaultServer) -> Settings:
    """A group of one deployment with everything else as users have it, time limits apart."""
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"},
        "model_info": {"kind": "hosted", "max_input_tokens": 4096},
    }
    changes = {"retries": RETRIES, "timeout_s": 1.5, "idle_timeout_s": 1.0, "notes": "paper"}
    return Settings.model_validate(
        {"home": home, "model": "readers", "model_list": [entry], "chunk_tokens": 300, **changes}
    )


def reply(call: ChatRequest) -> str:
    """A note whose end shows that nothing is missing."""
    return f"Note {call.digest} was written about the voyage, {END}"


async def run(name: str, faults: Faults, *, seed: int, n_chunks: int) -> Outcome:
    """One run, resumed as a user would where its retries were used up."""
    document = document_of(n_chunks)
    started = time.perf_counter()
    with FaultServer(reply, faults=faults, seed=seed) as server, tempfile.TemporaryDirectory() as home:
        settings = settings_for(Path(home), server)
        answer: Answer | None = None
        starts = 0
        async with Session(settings) as session:
            while answer is None and starts < 5:
                starts += 1
                try:
                    runs = session.runs.list()
                    answer = await (session.resume(runs[0].run_id) if runs else session.ask(document, QUESTION))
                except ModelError as error:
                    print(f"{name}: stopped by {type(error).__name__}, resumed", file=sys.stderr)
        stats = server.stats()
    most = RETRIES * starts + starts
    sent = Counter(stats.digests)
    coverage = answer.coverage if answer is not None else None
    return Outcome(
        name=name,
        problems=tuple(_problems(answer, sent, most)),
        complete=coverage is not None and coverage.complete,
        chunks=coverage.chunks if coverage is not None else 0,
        read=coverage.read if coverage is not None else 0,
        calls=stats.calls,
        needed=len(sent),
        faults=sum(count for outcome, count in stats.by_outcome.items() if outcome not in {"ok", "gone"}),
        seconds=time.perf_counter() - started,
    )


def _problems(answer: Answer | None, sent: Counter[str], most: int) -> list[str]:
    if answer is None:
        return ["no answer after five starts"]
    found = []
    coverage = answer.coverage
    if coverage.read + len(coverage.skipped) + coverage.unselected != coverage.chunks:
        found.append(f"coverage does not add up: {coverage}")
    if sum(sent.values()) > len(sent) * most or max(sent.values()) > most:
        found.append(f"a prompt was sent {max(sent.values())} times, {most} are allowed")
    cut = [note for note in answer.notes if note.informative and not note.text.endswith(END)]
    if cut:
        found.append(f"{len(cut)} notes of cut replies, as {cut[0].text[-60:]!r}")
    if END not in answer.text and not answer.warnings:
        found.append(f"the answer is cut, and nothing says so: {answer.text[-60:]!r}")
    return found


def plans(seeds: Sequence[int], *, each: bool) -> list[tuple[str, Faults, int]]:
    """The runs to make: all kinds mixed for each seed, and each kind alone if asked for."""

    def plan(rates: Mapping[FaultKind, float]) -> Faults:
        return Faults(rates=rates, hang_s=60.0, slow_s=0.3, retry_after_s=0.5, drip_s=0.2)

    made = [(f"seed {seed}", plan({kind: RATE / len(KINDS) for kind in KINDS}), seed) for seed in seeds]
    return made + ([(kind, plan({kind: RATE}), 1) for kind in KINDS] if each else [])


async def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args(arguments)
    outcomes = []
    for name, faults, seed in plans(range(options.seeds), each=options.each):
        outcomes.append(await run(name, faults, seed=seed, n_chunks=options.chunks))
        print(outcomes[-1], flush=True)
    wrong = sum(bool(outcome.problems) for outcome in outcomes)
    calls, needed = sum(o.calls for o in outcomes), sum(o.needed for o in outcomes)
    print(f"{len(outcomes)} runs, {wrong} wrong; {calls} calls for {needed} prompts ({calls / needed:.3f})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
