"""Two questions about the example novel in two processes: what the second one finds computed.

    python tests/tools/two_questions.py [--words 0]

A llama.cpp server process stands between them; tokens and seconds of prefill are its own counters. The second question
is asked once more without any cache: the answer and all notes have to be the same. Prints Markdown; exit code 1 where
the second question computed more than a tenth, or an answer differed.
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
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from coa.llm.embedded import MICRO_BATCH
from coa.llm.engine_process import EngineProcess
from coa.testing.models import test_model_path

REPOSITORY = Path(__file__).resolve().parents[2]
NOVEL = REPOSITORY / "examples/novel/the-salt-ledger.txt"
QUESTIONS = ("What was the bow of Orrow's brass key shaped like?", "Who is the heron?")
MOST = 0.10


class Took(NamedTuple):
    """What the server counted meanwhile."""

    tokens: int
    prefill_s: float
    wall_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=0, help="of the novel; 0: all of it")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="coa-two-") as name:
        folder = Path(name)
        book = folder / "novel.txt"
        words = NOVEL.read_text().split(" ")
        book.write_text(" ".join(words[: args.words or None]))
        states = folder / "states"
        states.mkdir()
        with EngineProcess(test_model_path(), alias="m", n_ctx=8192, slot_save_path=states) as engine:
            config = _config(folder / "coa.yaml", engine, states)
            told = [_asked(engine, config, book, folder, question) for question in QUESTIONS]
            told.append(_asked(engine, config, book, folder, QUESTIONS[1], "--no-cache"))
    rows = zip(("first", "second, another process", "second, without cache"), told, strict=True)
    print("| question | prompt tokens computed | seconds of prefill | wall s |\n| --- | --: | --: | --: |")
    for what, (took, _) in rows:
        print(f"| {what} | {took.tokens:,} | {took.prefill_s:.1f} | {took.wall_s:.1f} |")
    (first, _), (second, warm), (_, cold) = told
    tokens, seconds = second.tokens / first.tokens, second.prefill_s / first.prefill_s
    same = [warm["answer"], warm["notes"]] == [cold["answer"], cold["notes"]]
    print(f"\nSecond to first: {tokens:.1%} of the tokens, {seconds:.1%} of the prefill time.")
    print(f"Answer and notes of the second as without a cache: {'yes' if same else 'NO'}.")
    return 0 if same and max(tokens, seconds) <= MOST else 1


def _asked(
    engine: EngineProcess, config: Path, book: Path, folder: Path, question: str, *options: str
) -> tuple[Took, Any]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COA_")}
    environment |= {"COA_HOME": str(folder / "home"), "COA_RESPONSE_CACHE": "false", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "coa", "ask", str(book), question, "--config", str(config), *options]
    command += ["--notes", "paper", "--chunk-tokens", "3600", "--note-tokens", "160", "--answer-tokens", "200"]
    before, started = _counted(engine), time.perf_counter()
    ended = subprocess.run(
        [*command, "--show-notes", "--json"], capture_output=True, text=True, env=environment, check=False
    )
    if ended.returncode:
        raise SystemExit(f"coa ask ended with {ended.returncode}: {ended.stderr[-2000:]}")
    after = _counted(engine)
    took = Took(round(after[0] - before[0]), after[1] - before[1], time.perf_counter() - started)
    return took, json.loads(ended.stdout)


def _counted(engine: EngineProcess) -> tuple[float, float]:
    """Prompt tokens computed, and the seconds that took, since the server began."""
    text = httpx.get(
        f"{engine.root_url}/metrics", headers={"Authorization": f"Bearer {engine.api_key}"}, trust_env=False
    ).text
    values = dict(line.split(" ", 1) for line in text.splitlines() if line.startswith("llamacpp:"))
    return float(values["llamacpp:prompt_tokens_total"]), float(values["llamacpp:prompt_seconds_total"])


def _config(path: Path, engine: EngineProcess, states: Path) -> Path:
    params = {"model": "openai/m", "api_base": engine.base_url, "api_key": engine.api_key}
    info = {"kind": "llama_server", "slot_save_path": str(states), "n_ubatch": MICRO_BATCH}
    entry = {"model_name": "reader", "litellm_params": params, "model_info": info}
    path.write_text(yaml.safe_dump({"model": "reader", "model_list": [entry]}))
    return path


if __name__ == "__main__":
    sys.exit(main())
