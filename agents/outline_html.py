"""An outline as one HTML file: the tree on the left, the text on the right, nothing loaded from anywhere.

It can be used without scripts and with the keyboard alone; the script adds arrow keys to the tree and marks where
one is. The content policy allows that one script by its digest, so nothing that stands in a book can run.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterator

from coa.agents.outline import Outline, OutlineNode
from coa.agents.outline_rendering import opening
from coa.types import Document

__all__ = ["outline_to_html"]

_LEGEND = "Titles in this colour are phrases of the text that code picked; no model wrote them."
_STYLE = """
:root { color-scheme: light dark; --back: #fbfaf7; --front: #1d1c1a; --dim: #5f5b54; --line: #ddd8ce; --mark: #fdf0c4;
  --link: #0b57a4; --code: #7a4b00; }
@media (prefers-color-scheme: dark) { :root { --back: #171614; --front: #e9e6df; --dim: #a29d93; --line: #3a3833;
  --mark: #4a3f16; --link: #8ab8f0; --code: #e0b060; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--front); font: 16px/1.55 system-ui, sans-serif;
  display: grid; grid-template-columns: minmax(17rem, 27rem) minmax(0, 1fr); height: 100vh; }
header { grid-column: 1 / -1; padding: .7rem 1.2rem; border-bottom: 1px solid var(--line); }
h1 { font-size: 1.1rem; margin: 0; }
header p { margin: 0; color: var(--dim); font-size: .85rem; }
body { grid-template-rows: auto minmax(0, 1fr); }
nav { overflow: auto; padding: .8rem .6rem 3rem 1rem; border-right: 1px solid var(--line); font-size: .92rem; }
main { overflow: auto; padding: .5rem clamp(1rem, 4vw, 4rem) 60vh; font-family: Georgia, "Times New Roman", serif; }
nav ul { list-style: none; margin: 0; padding-left: 1.1rem; }
nav > ul { padding-left: 0; }
nav li { padding: .1rem .2rem; }
nav details { display: inline; }
summary { cursor: pointer; display: inline; color: var(--dim); font-size: .82rem; border-radius: .2rem; }
summary::before { content: "▸ "; }
[open] > summary::before { content: "▾ "; }
a { color: var(--link); text-decoration: underline; text-decoration-color: var(--line); text-underline-offset: .15em; }
a:hover { text-decoration-color: currentColor; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 1px; }
.number { color: var(--dim); font-variant-numeric: tabular-nums; margin-right: .35rem; }
.opening { display: block; color: var(--dim); font-size: .82rem; line-height: 1.35; }
a.here { background: var(--mark); border-radius: .2rem; }
main h2 { font: 600 .9rem/1.4 system-ui, sans-serif; color: var(--dim); margin: 1.6rem 0 .3rem; scroll-margin: 1rem; }
main h2.chapter { font-size: 1.3rem; color: var(--front); margin-top: 2.6rem; }
.code { color: var(--code); font-weight: 400; }
main p { margin: 0; max-width: 42rem; white-space: pre-line; overflow-wrap: anywhere; }
main p:target, main h2:target + p { background: var(--mark); }
main p.left-out { color: var(--dim); font-size: .85rem; }
.statement { max-width: 42rem; color: var(--dim); font: italic .9rem/1.45 system-ui, sans-serif; }
@media (max-width: 45rem) { body { display: block; height: auto; } nav { border-right: 0; max-height: 45vh;
  border-bottom: 1px solid var(--line); } }
@media print { body { display: block; height: auto; } nav, main { overflow: visible; padding: 0; } }
"""

_SCRIPT = """
const tree = document.querySelector('nav');
const shown = () => [...tree.querySelectorAll('a')].filter(a => a.offsetParent !== null);
tree.addEventListener('keydown', event => {
  const all = shown(), at = all.indexOf(document.activeElement);
  if (at < 0) return;
  const box = all[at].parentElement.querySelector(':scope > details');
  let to = null;
  if (event.key === 'ArrowDown') to = all[at + 1];
  else if (event.key === 'ArrowUp') to = all[at - 1];
  else if (event.key === 'Home') to = all[0];
  else if (event.key === 'End') to = all[all.length - 1];
  else if (event.key === 'ArrowRight' && box) { if (box.open) to = all[at + 1]; else box.open = true; }
  else if (event.key === 'ArrowLeft') {
    if (box && box.open) box.open = false;
    else { const up = all[at].closest('li').parentElement.closest('li'); to = up && up.querySelector('a'); }
  } else return;
  event.preventDefault();
  if (to) to.focus();
});
tree.addEventListener('click', event => {
  const link = event.target.closest('a');
  if (link) setTimeout(() => link.focus({ preventScroll: true }));
});
const mark = () => {
  tree.querySelectorAll('a.here').forEach(a => a.classList.remove('here'));
  const found = [...tree.querySelectorAll('a')].find(a => a.hash && a.hash === location.hash);
  if (!found) return;
  for (let box = found.closest('details'); box; box = box.parentElement.closest('details')) box.open = true;
  found.classList.add('here');
};
addEventListener('hashchange', mark);
mark();
"""


def outline_to_html(outline: Outline, document: Document) -> str:
    """The whole file. Every stretch of the document's text is in it once, in order, what was not read marked so."""
    policy = (
        f"default-src 'none'; style-src '{_digest(_STYLE)}'; script-src '{_digest(_SCRIPT)}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    name = html.escape(outline.title or outline.document)
    language = html.escape(document.language or "und", quote=True)
    by_code = any(node.origin == "code" for node in outline.walk())
    legend = f' <span class="code">{_LEGEND}</span>' if by_code else ""
    tree = "".join(_branch(node, document, depth=0) for node in outline.nodes)
    body = "".join(_text(outline, document))
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Outline of {name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{name}</h1>"
        f"<p>{html.escape(outline.document)}: {outline.n_sentences} sentences.{legend}</p></header>\n"
        f'<nav aria-label="Outline"><ul>{tree}</ul></nav>\n<main tabindex="0">{body}</main>\n'
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _branch(node: OutlineNode, document: Document, *, depth: int) -> str:
    shows = node.spans and node.kind != "chapter"
    said = f'<span class="opening">{html.escape(opening(document, node))}</span>' if shows else ""
    link = f'<a href="#{node.id}"><span class="number">{node.number}</span>{html.escape(node.title) or "…"}</a>'
    if not node.nodes:
        return f"<li>{link}{said}</li>"
    inner = "".join(_branch(n, document, depth=depth + 1) for n in node.nodes)
    opened = " open" if depth == 0 else ""
    # The link stands beside the fold, not in it: one thing to press has no other in it.
    fold = f"<details{opened}><summary>{len(node.nodes)} below</summary><ul>{inner}</ul></details>"
    return f"<li>{link} {said}{fold}</li>\n"


def _digest(code: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


def _text(outline: Outline, document: Document) -> Iterator[str]:
    """The document's text in order, cut at the nodes' spans, each node's heading in front of its first one."""
    places = sorted(
        ((s.start, s.end, node) for node in outline.walk() for s in node.spans), key=lambda place: place[:2]
    )
    headings: dict[int, list[OutlineNode]] = {}
    for node in outline.walk():
        headings.setdefault(node.span.start, []).append(node)
    told: set[str] = set()
    at = 0
    for start, end, node in places:
        yield from _left_out(document.text[at:start])
        for head in headings.get(start, [node]):
            if head.id not in told:
                told.add(head.id)
                yield _heading(head)
        if node.id not in told:
            told.add(node.id)
            yield _heading(node)
        yield f"<p>{html.escape(document.text[start:end].strip())}</p>\n"
        for statement in node.statements:
            if start <= statement.span.start < end:
                yield f'<p class="statement">{html.escape(statement.text)}</p>\n'
        at = end
    yield from _left_out(document.text[at:])


def _heading(node: OutlineNode) -> str:
    kind = ' class="chapter"' if node.kind == "chapter" else ""
    by_code = ' class="code"' if node.origin == "code" else ""
    title = f"<span{by_code}>{html.escape(node.title)}</span>"
    return f'<h2 id="{node.id}"{kind}><span class="number">{node.number}</span>{title}</h2>\n'


def _left_out(text: str) -> Iterator[str]:
    if text.strip():
        yield f'<p class="left-out">{html.escape(text.strip())}</p>\n'
