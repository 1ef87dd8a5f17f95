"""Showing evidence to a person, and asking which of it to strike out."""

from __future__ import annotations

import re
import sys

from coa.cli.terminal import printable

__all__ = ["ask_what_to_strike", "evidence_text", "ids_in"]

_ID = re.compile(r"\d+\.\d+")


def evidence_text(payload: object) -> str:
    """What a run that waits for review has found, a sentence a line."""
    shown = payload.get("evidence") if isinstance(payload, dict) else None
    lines = ["evidence found:"]
    for line in shown if isinstance(shown, list) else []:
        ids = " ".join(f"[{ident}]" for ident in line["ids"])
        where = f" ({line['chapter']})" if line.get("chapter") else ""
        lines.append(printable(f"  {ids} {line['text']}{where}"))
    return "\n".join(lines) if len(lines) > 1 else "no evidence was found"


def ids_in(text: str) -> list[str]:
    """The ids in what a person typed: "3.7, 4.1"."""
    return _ID.findall(text)


def ask_what_to_strike() -> list[str]:
    """The ids that the person at the terminal wants out; blocks until a line was typed. An end of input is none."""
    sys.stderr.write("Strike out which (like 3.7 4.1; Enter keeps all)? ")
    sys.stderr.flush()
    return ids_in(sys.stdin.readline())
