"""Two processes with one Redis and one folder of states read the same text: each chunk is computed once.

    python tests/tools/shared_reading.py [--kills 20] [--seed 1] [--chapters 1]

First undisturbed; then one of the two is killed by SIGKILL at a random moment, the other one has to answer as if
nothing had been, and so has the killed question when it is asked again. Every state that is on disk afterwards has to
be what its manifest says. Answers are compared with those of processes without any cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coa.cache.state_folder import StateFolder, file_digest
from coa.testing.models import test_model_path
from coa.testing.redis_process import RedisProcess, redis_servers

REPOSITORY = Path(__file__).resolve().parents[2]
NOVEL = REPOSITORY / "examples/novel/the-salt-ledger.txt"
QUESTIONS = ("What was the bow of Orrow's brass key shaped like?", "Who looks after the light?")
OPTIONS = ["--notes", "paper", "--chunk-tokens", "700", "--note-tokens", "40", "--answer-tokens", "24", "--json"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where an answer, a count or a state was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chapters", type=int, default=1)
    args = parser.parse_args(arguments)
    rng = random.Random(args.seed)
    program = list(redis_servers().values())[-1]
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="coa-shared-") as name, RedisProcess(program) as redis:
        home = Path(name) / "home"
        (home / "models").mkdir(parents=True)
        book = Path(name) / "book.txt"
        book.write_text("".join(re.split(r"(?m)^(?=CHAPTER )", NOVEL.read_text())[: 1 + args.chapters]))
        plain = [_said(_asked(book, home, q, cache=False)) for q in QUESTIONS]
        took = time.perf_counter()
        pair = [_begun(book, home, q, redis.url) for q in QUESTIONS]
        told = [_ended(process) for process in pair]
        took = time.perf_counter() - took
        faults += _wrong("undisturbed", told, plain) + _damaged(home)
        chunks = told[0]["coverage"]["chunks"]
        saved = len(list((home / "cache/kv").glob("*.kv")))
        computed = [each["usage"]["prompt_tokens"] - each["usage"]["cached_tokens"] for each in told]
        prompts = [each["usage"]["prompt_tokens"] for each in told]
        stats = _stats(home)
        print(f"Redis {redis.version}; {chunks} chunks; two processes at once in {took:.1f} s")
        print(
            f"prompt tokens {prompts[0]} and {prompts[1]}, computed {computed[0]} and {computed[1]} ({sum(computed)})"
        )
        print(f"states saved {stats['saved']}, on disk {saved}, restored {stats['restored']}")
        if not stats["saved"] == saved == chunks:
            faults.append(f"{chunks} chunks, but {stats['saved']} states were saved and {saved} lie on disk")
        n_whole = 0
        for kill in range(args.kills):
            shutil.rmtree(home / "cache", ignore_errors=True)
            pair = [_begun(book, home, q, redis.url) for q in QUESTIONS]
            victim = rng.randrange(2)
            time.sleep(rng.uniform(0.2, 0.9) * took)
            pair[victim].send_signal(signal.SIGKILL)
            pair[victim].communicate()
            survivor = _ended(pair[1 - victim])
            damaged = _damaged(home)
            again = _asked(book, home, QUESTIONS[victim], redis_url=redis.url)
            both = [again, survivor] if victim == 0 else [survivor, again]
            wrong = _wrong(f"kill {kill + 1}", both, plain) + damaged + _damaged(home)
            n_whole += not wrong
            faults += wrong
        print(f"{args.kills} kills: {n_whole} left both answers as they were and no state that is not whole")
    for fault in faults:
        print("WRONG:", fault)
    return 1 if faults else 0


def _begun(
    book: Path, home: Path, question: str, redis_url: str | None = None, *, cache: bool = True
) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COA_")}
    environment |= {"COA_HOME": str(home), "COA_RESPONSE_CACHE": "false", "PYTHONPATH": str(REPOSITORY)}
    environment["COA_KV_CACHE"] = "true" if cache else "false"
    if redis_url is not None:
        environment["COA_REDIS_URL"] = redis_url
    command = [sys.executable, "-m", "coa", "ask", str(book), question, *OPTIONS]
    command += ["--model", str(test_model_path().resolve()), "--show-notes"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _ended(process: subprocess.Popen[str]) -> Any:
    out, errors = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"coa ask ended with {process.returncode}: {errors[-2000:]}")
    return json.loads(out)


def _asked(book: Path, home: Path, question: str, redis_url: str | None = None, *, cache: bool = True) -> Any:
    return _ended(_begun(book, home, question, redis_url, cache=cache))


def _said(told: Any) -> object:
    return told["answer"], told["notes"]


def _wrong(when: str, told: Sequence[Any], plain: Sequence[object]) -> list[str]:
    return [
        f"{when}: question {n + 1} is answered otherwise than without a cache"
        for n, (each, wanted) in enumerate(zip(told, plain, strict=True))
        if _said(each) != wanted
    ]


def _damaged(home: Path) -> list[str]:
    """States that would be given out though they are not whole."""
    folder = StateFolder(home / "cache/kv")
    found = []
    for held in folder.listing():
        if held.whole:
            manifest = folder.read(held.stem)
            file = folder.path / manifest.file
            if file.stat().st_size != manifest.n_bytes or file_digest(file) != manifest.digest:
                found.append(f"{manifest.file} is not what its manifest says")
    return found


def _stats(home: Path) -> dict[str, int]:
    from coa.cache.kv_stats import KvStats, kv_stats_file

    total = KvStats(kv_stats_file(home)).totals().total
    return {"saved": total.saved, "restored": total.restored}


if __name__ == "__main__":
    sys.exit(main())
