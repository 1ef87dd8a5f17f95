"""The pages in a real browser: links, keys, the time that they take, and what a reader with a disability meets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.agents.outline_html import outline_to_html
from coa.documents import read_document
from coa.report.batch_index import IndexRow, batch_index
from coa.report.facts import RunFacts
from coa.report.page import page
from coa.report.run_page import run_page
from coa.testing.chromium import Chromium, Tab
from coa.types import Usage

pytestmark = pytest.mark.slow

_SEEN = """(element => {
  const box = element.getClientRects()[0];
  const pane = document.getElementById('source').getBoundingClientRect();
  return box.top >= Math.max(0, pane.top) && box.bottom <= Math.min(innerHeight, pane.bottom)
    && document.elementFromPoint(box.left + 5, box.top + box.height / 2).closest('mark') === element;
})"""


@pytest.fixture
def tab(browser: Chromium) -> Iterator[Tab]:
    with browser.tab() as opened:
        yield opened
        assert opened.told("Runtime.exceptionThrown") == []
        assert [e["entry"]["text"] for e in opened.told("Log.entryAdded")] == []


def _opened(tab: Tab, folder: Path, text: str) -> None:
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    tab.open(path)


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (400, True)])
def test_a_click_on_a_citation_brings_the_marked_sentence_into_view(
    tab: Tab, tmp_path: Path, novel_run: RunFacts, width: int, phone: bool
) -> None:
    tab.look(width=width, height=800, phone=phone)
    _opened(tab, tmp_path, run_page([novel_run]))
    for number, quote in ((2, novel_run.document.text.rstrip()[-60:]), (1, "It was a brass key as long as a finger")):
        tab.click(f"a.cites[href='#r1c{number}']")
        tab.settle()
        mark = f"document.getElementById('r1c{number}')"
        assert " ".join(tab.evaluate(f"{mark}.textContent").split()) == " ".join(quote.split())
        assert tab.evaluate(f"{_SEEN}({mark})"), number
        assert tab.evaluate(f"getComputedStyle({mark}).backgroundColor") == "rgb(255, 220, 115)"
        assert tab.evaluate(f"document.activeElement === {mark}")


def test_the_page_is_used_with_the_keyboard_alone(tab: Tab, tmp_path: Path, novel_run: RunFacts) -> None:
    _opened(tab, tmp_path, run_page([novel_run]))
    tab.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "To the answer"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    tab.press("Enter")
    for _ in range(10):
        tab.press("Tab")
        if tab.evaluate("document.activeElement.matches('a.cites')"):
            break
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("Enter")
    tab.settle()
    assert tab.evaluate("document.activeElement.id") == "r1c1"
    tab.press("Escape")
    tab.settle()
    assert tab.evaluate("document.activeElement.matches('a.cites')")
    tab.evaluate("document.querySelector('a.back[href=\"#r1q1\"]').focus()")
    tab.press("Enter")
    tab.settle()
    assert tab.evaluate("document.activeElement.id") == "r1q1"


def test_without_its_script_links_lead_to_the_marks_all_the_same(tab: Tab, tmp_path: Path, novel_run: RunFacts) -> None:
    tab.command("Emulation.setScriptExecutionDisabled", value=True)
    _opened(tab, tmp_path, run_page([novel_run]))
    tab.click("a.cites[href='#r1c2']")
    mark = "document.getElementById('r1c2')"
    for _ in range(50):
        if tab.evaluate(f"{_SEEN}({mark})"):
            break
        time.sleep(0.1)  # no script of the page can tell when it is there
    assert tab.evaluate(f"{_SEEN}({mark})")
    assert tab.evaluate(f"getComputedStyle({mark}).backgroundColor") == "rgb(255, 220, 115)"


def _book(n_paragraphs: int) -> bytes:
    words = "the keeper of the tide clock went down the stair and counted every step of it twice over"
    paragraphs = [f"Paragraph {n}: {words} & {words}, {words}.\n{words}; {words}." for n in range(n_paragraphs)]
    chapters = [f"CHAPTER {n + 1}.\n\n" + "\n\n".join(paragraphs[n::30]) for n in range(30)]
    return "\n\n".join(chapters).encode()


def _slowest(tab: Tab, path: Path) -> float:
    """Milliseconds until the page is parsed, painted, loaded, and a task of its own would be run."""
    tab.open(path)
    told = tab.evaluate(
        "new Promise(done => new PerformanceObserver(list => { const at = performance.now();"
        " const [n] = performance.getEntriesByType('navigation'), paints = list.getEntries().map(p => p.startTime);"
        " done([n.domContentLoadedEventEnd, n.loadEventEnd, at, ...paints]);"
        " }).observe({ type: 'paint', buffered: true }))"
    )
    return float(max(told))


def test_a_run_of_300_chunks_over_three_megabytes_opens_at_once_and_is_searched_whole(
    tab: Tab, tmp_path: Path, runs: Any, cited: Callable[..., Any]
) -> None:
    document = read_document(_book(6_800), name="big.txt")
    run_id = runs.begin(document, budget=2_700)
    n_chunks = runs.plan(run_id, document).n_chunks
    lines = [f"- The keeper counted the steps of stair {n} twice. [{n}.2][{n}.3]" for n in range(1, n_chunks + 1)]
    runs.notes(run_id, ["\n".join(lines[max(0, n - 20) : n + 1]) for n in range(n_chunks)])
    runs.answer(run_id, "Here [1].", [cited(document, "Paragraph 6799")])
    text = run_page([runs.facts(run_id)])
    assert n_chunks >= 300
    assert len(document.text) > 3_000_000
    assert len(text.encode()) < 2 * len(document.text.encode()) + 500_000
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    slowest = min(_slowest(tab, tmp_path / "page.html") for _ in range(2))
    assert slowest < 2_000
    tab.click("a.cites")
    tab.settle()
    assert tab.evaluate(f"{_SEEN}(document.getElementById('r1c1'))")
    # What browsers do for Ctrl-F.
    assert tab.evaluate("window.find('Paragraph 3456:')")
    assert tab.evaluate("getSelection().anchorNode.textContent").startswith("Paragraph 3456:")


def _eval_like() -> str:
    rows = "".join(
        f'<tr><th scope="row">chain</th><td class="number good">{n}%</td><td class="bad">x</td></tr>' for n in range(9)
    )
    body = (
        '<header><h1>Evaluation</h1></header><main><section class="panel"><h2>Scores</h2><div class="wide" '
        'role="region" aria-label="Scores" tabindex="0"><table><caption>By arm</caption><thead><tr>'
        f'<th scope="col">Arm</th><th scope="col">F1</th><th scope="col">EM</th></tr></thead><tbody>{rows}</tbody>'
        '</table></div><p class="dim small">Dim <a href="#x">link</a> <code>code</code> <mark>marked</mark></p>'
        '<p class="wary" id="x">wary</p><button type="button">Press</button></section></main>'
    )
    return page("Evaluation", body)


def _structured(runs: Any, cited: Callable[..., Any]) -> RunFacts:
    document = read_document(
        b"CHAPTER I.\n\nOne is here. Two is there.\n\nCHAPTER II.\n\nThree goes. Four came.", name="a.txt"
    )
    run_id = runs.begin(document, task="ask", question="Which?")
    (chunk,) = runs.plan(run_id, document).parts[0].chunks
    structure = {
        "scope": "All",
        "n_sentences": len(chunk.sentences),
        "made_by": "ids",
        "aspects": [
            {"title": "First", "origin": "code", "descriptions": [[0, 2]], "aspects": []},
            {"title": "Rest", "origin": "model", "descriptions": [[2, len(chunk.sentences)]], "aspects": []},
        ],
    }
    runs.step(run_id, "structure/0/0", {"structure": structure}, chunks=(0,))
    runs.note(run_id, 0, "- Two is there. [1.2]\n- **Four** came.")
    runs.step(run_id, "evidence/0/1/0", {"selected": [[2, 1.0]], "dropped": 0}, chunks=(0,))
    runs.answer(run_id, "Two [1]", [cited(document, "Two is there.")], warnings=("a `small` model",))
    facts: RunFacts = runs.facts(run_id)
    return facts


def _index() -> str:
    states = ("done", "partial", "failed", "waiting")
    rows = [
        IndexRow(
            f"book {n}.txt", states[n % 4], "Who?", "An *answer*.", f"p/{n}.html", Usage(1, 10, 5, 1), 2.0, error="e"
        )
        for n in range(8)
    ]
    return batch_index(rows, title="A batch", details=[("Task", "ask")])


def test_axe_finds_nothing_serious_in_light_and_dark(
    tab: Tab, tmp_path: Path, runs: Any, cited: Callable[..., Any], axe: str
) -> None:
    """Small pages that hold one of everything: `tests/tools/page_figures.py` does the same with whole books."""
    bad: dict[str, list[str]] = {}
    facts = _structured(runs, cited)
    assert facts.outline is not None
    for name, text in (
        ("structured", run_page([facts])),
        ("outline", outline_to_html(facts.outline, facts.document)),
        ("evaluation", _eval_like()),
        ("index", _index()),
    ):
        _opened(tab, tmp_path, text)
        tab.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")
        tab.evaluate(axe + "\n;0")
        for dark in (False, True):
            tab.look(width=1280, height=800, dark=dark)
            found = tab.evaluate("axe.run({ resultTypes: ['violations'] }).then(r => JSON.stringify(r.violations))")
            bad[f"{name}, dark {dark}"] = [f"{v['id']} ({v['impact']}): {v['nodes'][0]}" for v in json.loads(found)]
    assert {where: told for where, told in bad.items() if told} == {}


def test_the_index_is_narrowed_down_and_sorted(tab: Tab, tmp_path: Path) -> None:
    _opened(tab, tmp_path, _index())
    shown = "[...document.querySelectorAll('#rows tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    tab.evaluate(
        "(() => { const s = document.getElementById('state'); s.value = 'failed';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    assert tab.evaluate(shown) == ["book 2.txt", "book 6.txt"]
    assert tab.evaluate("document.getElementById('count').textContent") == "2 of 8 rows"
    for _ in range(2):
        tab.click("#rows thead button")
    assert tab.evaluate(shown) == ["book 6.txt", "book 2.txt"]
    assert tab.evaluate("document.querySelector('#rows th').getAttribute('aria-sort')") == "descending"
