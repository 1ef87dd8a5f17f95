"""Hostile books, questions, replies and names in pages: nothing of them runs, twice over.

Everything foreign is escaped, so nothing runs even without the page's policy; and under the policy nothing runs even
where an escape were missing. That the payloads do run where both are missing shows that these tests can fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coa.agents.checked import Checked
from coa.agents.outline import Outline
from coa.agents.outline_html import outline_to_html
from coa.documents import read_document
from coa.report.batch_index import IndexRow, batch_index
from coa.report.page import json_block, page
from coa.report.run_page import run_page
from coa.run_format import Part
from coa.testing.chromium import Chromium, Tab
from coa.types import Citation, Document, Place, Section, SkippedChunk, Span, Usage

PAYLOADS = (
    "<script>ran('script')</script>",
    "</script><script>ran('after script')</script>",
    "</style><script>ran('after style')</script>",
    "</title><script>ran('after title')</script>",
    "--><script>ran('after comment')</script>",
    "]]><script>ran('after cdata')</script>",
    "<img src=x onerror=ran('img')>",
    "<img src=x:x onerror&#61;ran('img2')>",
    "<svg onload=ran('svg')></svg>",
    "<svg><script>ran('svg script')</script></svg>",
    "<svg><animate onbegin=ran('animate') attributeName=x dur=1s>",
    "<body onload=ran('body')>",
    "<iframe srcdoc=\"<script>parent.ran('srcdoc')</script>\"></iframe>",
    "<iframe src=\"javascript:parent.ran('frame')\"></iframe>",
    "<object data=\"data:text/html,<script>parent.ran('object')</script>\"></object>",
    "<embed src=\"javascript:ran('embed')\">",
    "<a href=\"javascript:ran('link')\" id=evil>click</a>",
    "<form action=\"javascript:ran('form')\"><button id=evil2>send</button></form>",
    "<input autofocus onfocus=ran('focus')>",
    "<details open ontoggle=ran('toggle')>",
    "<video><source onerror=ran('video')></video>",
    "<audio src onerror=ran('audio')>",
    "<style>@keyframes x{}*{animation:x 1s}</style><b onanimationstart=ran('animation')>",
    "<math><mtext><table><mglyph><style><img src onerror=ran('mutation')>",
    "<noscript><p title=\"</noscript><img src=x onerror=ran('noscript')>\">",
    "<meta http-equiv=refresh content=\"0;url=javascript:ran('refresh')\">",
    "<base href=\"javascript:ran('base')//\">",
    "<link rel=stylesheet href=\"javascript:ran('sheet')\">",
    "\" onmouseover=ran('attribute') autofocus onfocus=ran('attribute') x=\"",
    "' onfocus=ran('attribute2') autofocus tabindex=1 x='",
    "javascript:ran('address')",
    "[link](javascript:ran('markdown')) ![i](x\" onerror=ran('image'))",
    "`</code><script>ran('code')</script>`",
    "**<b onmouseover=ran('bold')>**",
    "{{constructor.constructor('ran(1)')()}} ${ran('template')} <%= ran(2) %> #{ran(3)}",
    "\\u003cscript\\u003eran('escape')\\u003c/script\\u003e",
    "&lt;script&gt;ran('entity')&lt;/script&gt;",
    "<scr\0ipt>ran('nul')</scr\0ipt>",
    "<!--<script>-->ran('double escape')",
    "';ran('string');//",
    "\u2028ran('separator')\u2029",
    "+ADw-script+AD4-ran('utf-7')+ADw-/script+AD4-",
    "<template shadowrootmode=open><script>ran('shadow')</script></template>",
    "<portal src=x onload=ran('portal')> <marquee onstart=ran('marquee')>x</marquee>",
)
HOSTILE = "\n\n".join(PAYLOADS)
_LINE = " ".join(PAYLOADS).replace("\u2028", " ").replace("\u2029", " ")
_FOREIGN = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n')

pytestmark = pytest.mark.slow


@pytest.fixture
def tab(browser: Chromium) -> Iterator[Tab]:
    with browser.tab() as opened:
        opened.command("Runtime.addBinding", name="ran")
        opened.command("Page.addScriptToEvaluateOnNewDocument", source="window.alert = () => ran('alert');")
        yield opened


def _ran(tab: Tab, path: Path, text: str) -> list[str]:
    """What ran when the page was opened and everything in it was hovered, focused, opened and clicked."""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    tab.open(path)
    tab.evaluate(
        # What leads to another page is held back, what would run a script is not.
        "(() => { document.addEventListener('click', event => { const a = event.target.closest('a');"
        " if (a && a.protocol === 'file:' && a.pathname !== location.pathname) event.preventDefault(); }, true);"
        " for (const e of document.querySelectorAll('body *')) {"
        " if (e.tagName === 'DETAILS') e.open = true;"
        " e.dispatchEvent(new MouseEvent('mouseover', { bubbles: false }));"
        " if (e.focus) e.focus({ preventScroll: true });"
        " if (e.matches('a, button, summary')) e.click(); } })()"
    )
    tab.settle()
    return [str(call["payload"]) for call in tab.told("Runtime.bindingCalled")]


_ELEMENTS = """(() => {
  const all = [...document.querySelectorAll('*')];
  return {
    handlers: all.flatMap(e => [...e.attributes]).filter(a => a.name.startsWith('on')).length,
    foreign: all.map(e => e.localName)
      .filter(name => /^(iframe|object|embed|form|img|video|audio|base|link|template)$/.test(name)),
    scripts: document.scripts.length,
    styles: document.querySelectorAll('style, [style]').length,
    away: [...document.querySelectorAll('[href], [src]')].map(e => e.getAttribute('href') || e.getAttribute('src'))
      .filter(address => !address.startsWith('#')),
  };
})()"""


def _hostile_document() -> Document:
    document = read_document(HOSTILE.replace("\0", "").encode(), name=_LINE)
    n = len(document.text)
    return replace(
        document,
        title=_LINE,
        language='en" onmouseover="ran(9)',
        sections=(Section(_LINE, Span(0, n)), Section(PAYLOADS[0], Span(40, n), "section", level=2)),
        places=(Place(Span(0, n), page=1, page_label=_LINE),),
    )


def _hostile_run(runs: Any) -> Any:
    """The facts of a run with payloads wherever text can come from outside."""
    document = _hostile_document()
    run_id = runs.begin(document, question=_LINE)
    runs.note(run_id, 0, HOSTILE + " [1.1]")
    runs.note(run_id, 1, HOSTILE, cause=_LINE, path=_LINE)
    runs.step(run_id, "auto/choice", {"strategy": _LINE, "reason": _LINE})
    runs.step(run_id, f"{_LINE}/0", {"text": HOSTILE}, chunks=(0,))
    runs.step(run_id, "evidence/0/1/0", {"selected": [[1, 1.0]]}, chunks=(0,))
    runs.step(run_id, "check/0", {"label": _LINE, "statement": HOSTILE, "reason": _LINE, "references": []})
    chunk = runs.plan(run_id, document).parts[0].chunks[0]
    n = len(chunk.sentences)
    aspect = {"title": _LINE, "origin": "code", "descriptions": [[0, n]], "aspects": []}
    structure = {"scope": _LINE, "n_sentences": n, "made_by": "ids", "aspects": [aspect]}
    runs.step(run_id, "structure/0/0", {"structure": structure}, chunks=(0,))
    runs.answer(
        run_id,
        f"# {_LINE}\n\n- {_LINE} [1]\n\n{HOSTILE} [2]",
        [
            Citation(_LINE, 3, 60, chapter=_LINE, page=1),
            Citation(_LINE, 40, 90, chapter=_LINE, status="fuzzy"),
            Citation(_LINE, 0, 0, status="not_found"),
        ],
        warnings=(_LINE, HOSTILE),
        strategy_reason=_LINE,
        strategy=_LINE,
        verdict="answered",
    )
    facts = runs.facts(run_id)
    record = replace(facts.record, model=_LINE, strategy=_LINE, prompts={_LINE: _LINE}, error=_LINE, created=_LINE)
    answer = replace(facts.answer, coverage=replace(facts.answer.coverage, skipped=(SkippedChunk(0, _LINE),)))
    parts = (Part(_LINE, facts.plan.parts[0].chunks), Part(PAYLOADS[6], ()))
    assert isinstance(facts.outline, Outline)
    return replace(facts, record=record, answer=answer, plan=replace(facts.plan, parts=parts, tokenizer=_LINE))


def _index() -> str:
    row = IndexRow(_LINE, _LINE, _LINE, HOSTILE, _LINE, Usage(), 1.0, error=_LINE)
    links = [payload for payload in PAYLOADS if "javascript:" in payload]
    rows = [row, *(IndexRow("a", "done", link=link) for link in [*links, "//host/a", "http://host/", "\\\\host\\a"])]
    return batch_index(rows, title=_LINE, details=[(_LINE, _LINE)])


@pytest.mark.parametrize("guarded", [True, False], ids=["under the policy", "without the policy"])
def test_nothing_of_a_hostile_run_runs(tab: Tab, tmp_path: Path, runs: Any, guarded: bool) -> None:
    facts = _hostile_run(runs)
    unanswered = replace(facts, answer=None, record=replace(facts.record, state="failed"))
    statements = (
        Checked(_LINE, _LINE, "true", HOSTILE, tuple(facts.answer.citations[:2])),
        Checked(HOSTILE, None, None, "", cause=_LINE),
    )
    checked = replace(facts, record=replace(facts.record, task="check"), checked=statements)
    outline = outline_to_html(facts.outline, facts.document)
    for text in (run_page([facts, unanswered, checked]), outline):
        assert _FOREIGN.search(text)
        assert _ran(tab, tmp_path / "page.html", text if guarded else _FOREIGN.sub("", text)) == []
        found = tab.evaluate(_ELEMENTS)
        assert found == {"handlers": 0, "foreign": [], "scripts": 1, "styles": 1, "away": []}
        assert tab.evaluate("document.body.textContent").count("ran('script')") >= 2
    assert tab.told("Page.javascriptDialogOpening") == []
    assert tab.told("Runtime.exceptionThrown") == []


@pytest.mark.parametrize("guarded", [True, False], ids=["under the policy", "without the policy"])
def test_nothing_of_a_hostile_batch_runs(tab: Tab, tmp_path: Path, guarded: bool) -> None:
    text = _index()
    assert _ran(tab, tmp_path / "page.html", text if guarded else _FOREIGN.sub("", text)) == []
    hosts = "[...document.querySelectorAll('a')].filter(a => a.protocol !== 'file:' || a.host !== '').length"
    assert tab.evaluate(hosts) == 0


def test_what_is_not_escaped_runs_without_the_policy_and_does_not_under_it(
    tab: Tab, tmp_path: Path, browser: Chromium
) -> None:
    hostile = "".join(f"<div>{payload}</div>" for payload in PAYLOADS if "noscript" not in payload)
    guarded = page("A title", hostile)
    assert _ran(tab, tmp_path / "page.html", guarded) == []
    with browser.tab() as other:
        other.command("Runtime.addBinding", name="ran")
        ran = _ran(other, tmp_path / "page.html", _FOREIGN.sub("", guarded))
    assert {"script", "img", "svg", "link", "toggle"} <= set(ran)


def test_json_for_a_script_stays_data(tab: Tab, tmp_path: Path) -> None:
    value = {payload: list(PAYLOADS) for payload in PAYLOADS}
    script = "document.title = JSON.parse(document.getElementById('data').textContent)[\"';ran('string');//\"].length;"
    text = _FOREIGN.sub("", page("A", json_block("data", value), script=script))
    assert _ran(tab, tmp_path / "page.html", text) == []
    assert tab.evaluate("document.title") == str(len(PAYLOADS))


def test_a_string_cannot_become_markup_later(tab: Tab, tmp_path: Path) -> None:
    text = page("A", "<p id='p'>x</p>", script="document.getElementById('p').innerHTML = 'b';")
    assert _ran(tab, tmp_path / "page.html", text) == []
    assert tab.evaluate("document.getElementById('p').innerHTML") == "x"
    (thrown,) = tab.told("Runtime.exceptionThrown")
    assert "TrustedHTML" in str(thrown)
