"""What prefill-ahead and reading together give on GPUs: a simulation, checked against real runs first.

    python tests/bench/prefill_predictions.py [--check RUNS.json]

`--check` compares the simulation with what `tests/bench/prefill_ahead.py --json RUNS.json` measured on two real
engines: speeds are taken from the arm without prefill-ahead alone, both arms are simulated, and the error is stated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the folder above tests is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.simulation import Chain, Hop, Policy, Speeds, simulate


def check(arms: Sequence[Mapping[str, Any]]) -> str:
    """Measured and simulated wall times, as Markdown; speeds from the arms without prefill-ahead alone."""
    without = [arm for arm in arms if not arm["ahead"]]
    measured = [hop for arm in without for hop in arm["hops"]]
    decode = sum(h["completion_tokens"] for h in measured) / sum(h["completion_s"] for h in measured)
    prefill = sum(h["prompt_tokens"] for h in measured) / sum(h["prefill_s"] for h in measured)
    spent = [arm["wall_s"] - sum(h["seconds"] for h in arm["hops"]) for arm in without]
    speeds = Speeds(prefill, decode, statistics.fmean(spent) / len(without[0]["hops"]))
    tails = {n: h for arm in arms if arm["ahead"] for n, h in enumerate(arm["hops"])}
    lines = [
        f"prefill {speeds.prefill:.0f} and decode {speeds.decode:.1f} tokens a second, "
        f"{speeds.overhead_s:.2f} s a hop outside the engine",
        "",
        "| arm | measured s | simulated s | error |",
        "|---|---|---|---|",
    ]
    for ahead in (False, True):
        walls = [arm["wall_s"] for arm in arms if arm["ahead"] is ahead]
        hops = []
        for n, hop in enumerate(without[0]["hops"]):
            tail = int(hop["prompt_tokens"]) - int(tails[n]["prefix_tokens"])
            hops.append(Hop(int(tails[n]["prefix_tokens"]), tail, int(hop["completion_tokens"])))
        policy = Policy(most_ahead=2 if ahead else 0)
        told = simulate([Chain("book", hops)], replicas=2, speeds=speeds, policy=policy)
        wall = statistics.fmean(walls)
        error = told.makespan_s / wall - 1
        lines.append(f"| {'with' if ahead else 'without'} | {wall:.1f} | {told.makespan_s:.1f} | {error:+.1%} |")
    return "\n".join(lines)


PUBLISHED = {
    "RTX 3090, 8B Q4_K_M": Speeds(2527.40, 87.49),
    "RTX 4090, 8B Q4_K_M": Speeds(4039.68, 110.66),
    "RTX 4090, 8B F16": Speeds(4744.18, 50.88),
}
"""llama-bench, LLaMA 3 8B: pp 8192 and tg 8192 (XiongjieDai/GPU-Benchmarks-on-LLM-Inference, README, May 2024)."""


def predicted(*, chunks: int = 32, chunk: int = 8000, tail: int = 600, reply: int = 300) -> str:
    """Two replicas, chunks of 8k tokens: one chain with and without prefill-ahead, as Markdown."""
    lines = ["| engine | s a hop without | with | ratio | tokens on the critical path |", "|---|---|---|---|---|"]
    chain = Chain("book", [Hop(chunk, tail, reply)] * chunks)
    for name, speeds in PUBLISHED.items():
        arms = [
            simulate([chain], replicas=2, speeds=speeds, policy=Policy(most_ahead=most), capacity=100_000)
            for most in (0, 2)
        ]
        per_hop = [told.makespan_s / chunks for told in arms]
        critical = [statistics.median(told.critical[2:]) for told in arms]
        lines.append(
            f"| {name} | {per_hop[0]:.2f} | {per_hop[1]:.2f} | {per_hop[1] / per_hop[0]:.2f} "
            f"| {critical[0]:,.0f} -> {critical[1]:,.0f} ({critical[1] / critical[0] - 1:+.0%}) |"
        )
    return "\n".join(lines)


def predicted_together(
    *, questions: int = 8, chunks: int = 32, chunk: int = 8000, tail: int = 600, reply: int = 300
) -> str:
    """One engine that keeps two chunks and writes four replies at once at full speed each: questions one after the
    other and in step, as Markdown."""
    chain = Chain("book", [Hop(chunk, tail, reply)] * chunks)
    lines = ["| engine | questions | prompt tokens computed | seconds |", "|---|---|---|---|"]
    for name, speeds in PUBLISHED.items():
        alone, together = (
            simulate(
                [chain] * n,
                replicas=1,
                speeds=speeds,
                policy=Policy(together=n > 1, restores=False),
                slots=4,
                capacity=2 * chunk,
            )
            for n in (1, questions)
        )
        one_by_one = questions * alone.makespan_s
        lines.append(f"| {name} | one after the other | {questions * alone.computed:,} | {one_by_one:,.0f} |")
        lines.append(f"| {name} | in step | {together.computed:,} | {together.makespan_s:,.0f} |")
    return "\n".join(lines)


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path, help="what prefill_ahead.py --json wrote")
    options = parser.parse_args()
    if options.check is not None:
        print(check(json.loads(options.check.read_text(encoding="utf-8"))), end="\n\n")
    print(predicted(), end="\n\n")
    print(predicted_together())
    return 0


if __name__ == "__main__":
    sys.exit(main())
