"""Questions asked in one command against as many commands without any cache: tokens computed, and time.

    python tests/tools/many_questions.py [--questions 8] [--words 0] [--chunk-tokens N]

Reads the example novel (its first --words words, 0: all of it) with the embedded model, `--notes paper`, in real `coa`
processes with homes of their own. Computed are the prompt tokens that the engine reports less those that it found in
place; what was computed for a call before it counts as computed. Prints Markdown; exit 1 where the one command computes
more than a quarter of the tokens or takes more than half of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coa.testing.models import test_model_path

NOVEL = Path(__file__).resolve().parents[2] / "examples" / "novel"
MOST_COMPUTED, MOST_TIME = 0.25, 0.5


@dataclass(frozen=True)
class Arm:
    """What one way of asking took."""

    wall_s: float
    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    answers: tuple[str, ...]

    @property
    def computed(self) -> int:
        """Prompt tokens."""
        return self.prompt_tokens - self.cached_tokens


def ask(book: Path, questions: Sequence[str], home: Path, *more: str) -> list[dict[str, Any]]:
    """The answers of one command, as it prints them. Raises: RuntimeError where it fails."""
    command = [sys.executable, "-m", "coa", "ask", str(book), "--model", str(test_model_path().resolve())]
    command += ["--notes", "paper", "--no-progress", "--quiet", "--format", "jsonl", *more]
    for question in questions:
        command += ["-q", question]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COA_")}
    done = subprocess.run(
        command, env={**environment, "COA_HOME": str(home)}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def measured(book: Path, commands: Sequence[Sequence[str]], folder: Path, *more: str) -> Arm:
    """What the commands took, one after the other, each in a new home."""
    answers: list[dict[str, Any]] = []
    started = time.perf_counter()
    for number, questions in enumerate(commands):
        answers += ask(book, questions, folder / f"home-{number}", *more)
    wall_s = time.perf_counter() - started
    total = {key: sum(int(answer["usage"][key]) for answer in answers) for key in answers[0]["usage"] if _counts(key)}
    return Arm(
        wall_s,
        total["calls"],
        total["prompt_tokens"],
        total["cached_tokens"],
        total["completion_tokens"],
        tuple(str(answer["answer"]) for answer in answers),
    )


def _counts(key: str) -> bool:
    return key in {"calls", "prompt_tokens", "cached_tokens", "completion_tokens"}


def table(together: Arm, apart: Arm) -> str:
    """Both arms as Markdown."""
    n = len(together.answers)
    lines = [f"| | one command, {n} questions | {n} commands, --no-cache | ratio |", "|---|---|---|---|"]
    for name in ("calls", "prompt_tokens", "cached_tokens", "computed", "completion_tokens", "wall_s"):
        one, other = float(getattr(together, name)), float(getattr(apart, name))
        ratio = f"{one / other:.3f}" if other else ""
        lines.append(f"| {name.replace('_', ' ')} | {one:,.0f} | {other:,.0f} | {ratio} |")
    equal = sum(a == b for a, b in zip(together.answers, apart.answers, strict=True))
    return "\n".join([*lines, "", f"{equal} of {n} answers are equal."])


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--words", type=int, default=0)
    parser.add_argument("--chunk-tokens", type=int)
    options = parser.parse_args(arguments)
    lines = (NOVEL / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [str(json.loads(line)["question"]) for line in lines[: options.questions]]
    text = (NOVEL / "the-salt-ledger.txt").read_text(encoding="utf-8")
    more = () if options.chunk_tokens is None else ("--chunk-tokens", str(options.chunk_tokens))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        book = folder / "the-salt-ledger.txt"
        # Whole paragraphs, so that both arms cut the same chunks.
        paragraphs, words = text.split("\n\n"), 0
        kept: list[str] = []
        for paragraph in paragraphs:
            if options.words and words >= options.words:
                break
            kept.append(paragraph)
            words += len(paragraph.split())
        book.write_text("\n\n".join(kept) + "\n", encoding="utf-8")
        together = measured(book, [questions], folder / "together", *more)
        apart = measured(book, [[question] for question in questions], folder / "apart", "--no-cache", *more)
    print(table(together, apart))
    held = together.computed <= MOST_COMPUTED * apart.computed and together.wall_s <= MOST_TIME * apart.wall_s
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
