"""An outline as a tree of folded lists, each title a link to its place in the text beside it."""

from __future__ import annotations

from coa.agents.outline import Outline, OutlineNode
from coa.report.page import escaped
from coa.report.source import anchor_id

__all__ = ["outline_html"]


def outline_html(outline: Outline, *, opened: bool) -> str:
    """The tree; `opened` unfolds its first level."""
    by_code = any(node.origin == "code" for node in outline.walk())
    legend = '<p class="dim small">In italics: phrases of the text that code picked; no model wrote them.</p>\n'
    tree = "".join(_branch(node, opened=opened) for node in outline.nodes)
    return f'{legend if by_code else ""}<ul class="outline">\n{tree}</ul>\n'


def _branch(node: OutlineNode, *, opened: bool = False) -> str:
    title = escaped(node.title, quotes=False) or "…"
    shown = f"<i>{title}</i>" if node.origin == "code" else title
    link = f'<a href="#{anchor_id(node.span.start)}">{node.number} {shown}</a>'
    if not node.nodes:
        return f"<li>{link}</li>\n"
    inner = "".join(_branch(below) for below in node.nodes)
    # The link stands beside the fold, not in it: one thing to press has no other in it.
    fold = f"<details{' open' if opened else ''}><summary>{len(node.nodes)} below</summary><ul>\n{inner}</ul></details>"
    return f"<li>{link} {fold}</li>\n"
