"""Runs one step of the Makefile, says its name and how long it took, and keeps the time for the closing table.

    python3 tests/tools/step.py LOG run NAME COMMAND [ARGUMENT...]
    python3 tests/tools/step.py LOG table

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path


def run(log: Path, name: str, command: list[str]) -> int:
    """The exit code of `command`; its time is appended to `log`."""
    print(f"==> {name}: {shlex.join(command)}", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    seconds = time.monotonic() - started
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as times:
        times.write(f"{name}\t{seconds:.1f}\t{code}\n")
    ending = "" if code == 0 else f", FAILED with exit code {code}"
    print(f"==> {name} {seconds:.1f} s{ending}", flush=True)
    return code if code >= 0 else 128 - code


def table(log: Path) -> str:
    """The steps of `log` in the order they ran, with their sum."""
    rows = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines()]
    width = max(len("total"), *(len(row[0]) for row in rows))
    lines = [f"{name:<{width}}  {float(seconds):7.1f} s" for name, seconds, _ in rows]
    lines.append(f"{'total':<{width}}  {sum(float(row[1]) for row in rows):7.1f} s")
    return "\n".join(lines)


def main() -> int:
    """Exit code of the step, 2 for a wrong call."""
    match sys.argv[1:]:
        case [log, "run", name, *command] if command:
            return run(Path(log), name, command)
        case [log, "table"]:
            print(f"\n{table(Path(log))}")
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
