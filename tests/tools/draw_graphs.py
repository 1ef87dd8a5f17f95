"""Writes graphs/README.md: each strategy with its picture. `--check` only says whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from coa.graphs import STRATEGIES, mermaid

TARGET = Path(__file__).resolve().parents[2] / "graphs" / "README.md"
HEAD = """# The graphs

One strategy, one file. Drawn by `python tests/tools/draw_graphs.py`; a test keeps the pictures true.
Each takes `{"question": str | None}` (None asks for a summary) and gives answer, citations, claims, coverage, verdict
and warnings; what it reads and with which agents stands in the runtime context (`coa.graphs.ReadContext`).
"""


def page() -> str:
    """The whole file."""
    parts = [HEAD]
    for found in STRATEGIES.values():
        agents = ", ".join(sorted(found.agents))
        picture = mermaid(found.name).strip()
        parts.append(f"## {found.name}\n\n{found.description}. Agents: {agents}.\n\n```mermaid\n{picture}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """0 when the file is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(TARGET.read_text(encoding="utf-8") != page())
    TARGET.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
