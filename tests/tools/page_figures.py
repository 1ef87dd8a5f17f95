"""What pages of runs take in Chromium, what axe-core says of them, and pictures of them to look at.

    python tests/tools/fetch_axe.py
    python tests/tools/page_figures.py --out build/pages [RUN]...

Each RUN is one of COA_HOME (or of `coa runs list`). Without any, a book of three megabytes is made and read in 300
chunks by a model that reads by words, behind a real HTTP server; that takes a minute or two. Of each page it prints the
sizes, the times until it is parsed, painted, loaded and idle (milliseconds, the better of two), where a click on the
last citation leads, and axe-core's serious findings in light, dark and on a phone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from coa.api import Session
from coa.config import Settings, load_settings
from coa.documents import read_document
from coa.report.facts import RunFacts, facts_of
from coa.report.run_page import run_page
from coa.runs import RunStore
from coa.testing.chromium import Chromium, Tab
from coa.testing.fault_server import FaultServer
from coa.testing.reading_model import read_by_words

AXE = Path(__file__).resolve().parents[2] / "build" / "axe" / "axe.min.js"
QUESTION = "Which paragraph tells of the glass heron?"
_TIMES = """new Promise(done => new PerformanceObserver(list => setTimeout(() => {
  const [n] = performance.getEntriesByType('navigation');
  const painted = Math.max(...list.getEntries().map(p => p.startTime));
  done([n.domContentLoadedEventEnd, painted, n.loadEventEnd, performance.now()].map(Math.round));
})).observe({ type: 'paint', buffered: true }))"""
_AXE = "axe.run({ resultTypes: ['violations'] }).then(r => JSON.stringify(r.violations))"
_LOOKS = (("light", 1280, False), ("dark", 1280, True), ("phone", 400, False), ("phone-dark", 400, True))


def _book(n_paragraphs: int = 8_200) -> bytes:
    words = "the keeper of the tide clock went down the stair and counted every step of it twice over"
    lines = [f"In paragraph {n} {words} & {words}, {words}. {words.capitalize()}." for n in range(n_paragraphs)]
    for n in range(50, n_paragraphs, 400):
        lines[n] = (
            f"Paragraph {n} tells of the glass heron that stood on the stair, <b>and</b> of its keeper. {lines[n]}"
        )
    chapters = [f"CHAPTER {n + 1}.\n\n" + "\n\n".join(lines[n::30]) for n in range(30)]
    return "\n\n".join(chapters).encode()


async def _read(home: Path) -> str:
    """The id of a run over the long book."""
    document = read_document(_book(), name="glass-heron.txt")
    with FaultServer(lambda call: read_by_words(str(call.messages[-1]["content"])), n_ctx=8192) as server:
        entry = {
            "model_name": "readers",
            "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "sk-none"},
            "model_info": {"kind": "hosted", "max_input_tokens": 8192},
        }
        settings = Settings.model_validate(
            {"home": home, "model": "readers", "model_list": [entry], "chunk_tokens": 2_700, "response_cache": False}
        )
        async with Session(settings) as session:
            return (await session.ask(document, QUESTION)).run_id


def _figures(tab: Tab, facts: RunFacts, out: Path, axe: bool) -> None:
    started = time.perf_counter()
    text = run_page([facts])
    made = time.perf_counter() - started
    path = out / f"{facts.record.run_id}.html"
    path.write_text(text, encoding="utf-8")
    book, size = len(facts.document.text.encode()), len(text.encode())
    print(f"{facts.record.run_id}: {facts.record.task} {facts.record.strategy}, {facts.plan.n_chunks} chunks")
    print(f"  book {book:,} bytes, page {size:,} bytes (allowed {2 * book + 500_000:,}), made in {made:.2f} s")
    times = []
    for _ in range(2):
        tab.open(path)
        times.append(tab.evaluate(_TIMES))
    parsed, painted, loaded, idle = min(times, key=max)
    print(f"  parsed {parsed} ms, painted {painted} ms, loaded {loaded} ms, idle {idle} ms")
    if tab.evaluate("document.querySelectorAll('a.cites').length"):
        tab.evaluate("[...document.querySelectorAll('a.cites')].at(-1).click()")
        tab.settle()
        told = "(e => [e.id, Math.round(e.getClientRects()[0].top), innerHeight])(document.activeElement)"
        print(f"  the last citation: {tab.evaluate(told)} (element, its top, the window's height)")
    for name, width, dark in _LOOKS:
        tab.look(width=width, height=860, dark=dark, phone=width == 400)
        tab.settle()
        tab.screenshot(out / f"{facts.record.run_id}-{name}.png")
        if axe:
            _print_findings(tab, name)


def _print_findings(tab: Tab, name: str) -> None:
    # The text's blocks are all alike: a few of them are enough, and axe takes minutes for all.
    tab.evaluate(
        "document.querySelectorAll('.block:nth-child(n+4), .entry:nth-child(n+12)').forEach(e => e.remove());"
        "document.querySelectorAll('details').forEach(box => { box.open = true; })"
    )
    if tab.evaluate("typeof axe") == "undefined":
        tab.evaluate(AXE.read_text(encoding="utf-8") + "\n;0")
    found = [v for v in json.loads(tab.evaluate(_AXE)) if v["impact"] in ("serious", "critical", "moderate")]
    print(f"  axe, {name}: " + (", ".join(f"{v['id']} ({v['impact']})" for v in found) or "nothing"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("build/pages"))
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    axe = AXE.exists()
    if not axe:
        print(f"{AXE} is not there: run tests/tools/fetch_axe.py for axe-core's findings")
    with TemporaryDirectory() as folder, Chromium() as browser:
        if given.runs:
            store, ids = RunStore(load_settings().settings.home), given.runs
        else:
            store, ids = RunStore(Path(folder)), [asyncio.run(_read(Path(folder)))]
        for run_id in ids:
            with browser.tab(width=1280, height=860) as tab:
                _figures(tab, facts_of(store, run_id), given.out, axe)
    return 0


if __name__ == "__main__":
    sys.exit(main())
