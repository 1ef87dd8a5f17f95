"""What a model wrote, as markup: the little Markdown that models use, and links to what it cites.

Only what is recognised becomes an element; everything is escaped first, so a reply can hold no markup of its own, and
addresses in it stay text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from coa.report.page import escaped

__all__ = ["answer_html", "inline_html"]

Link = Callable[[str], str | None]
"""From what stands in brackets ("3", "4.12") to the markup of a link; None leaves it as it is."""

_HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t]*#*")
_ITEM = re.compile(r"[ \t]*(?:[-*•]|(\d{1,3})[.)])[ \t]+(.+)")
_RULE = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*")
_BRACKET = re.compile(r"\[([\d.,;–\- ]{1,60})\]")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_CODE = re.compile(r"`([^`\n]+)`")
_STRONG = re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])")


def answer_html(text: str, link: Link, *, heading: int = 3) -> str:
    """Headings, lists and paragraphs; `heading` is the level that the text's outermost heading gets."""
    found: list[str] = []
    lines: list[str] = []
    items: list[str] = []
    first: str | None = None

    def close() -> None:
        if lines:
            found.append("<p>" + "<br>\n".join(inline_html(line, link) for line in lines) + "</p>\n")
            lines.clear()
        if items:
            tag, start = ("ul", "") if first is None else ("ol", "" if first == "1" else f' start="{first}"')
            inner = "".join(f"<li>{inline_html(item, link)}</li>\n" for item in items)
            found.append(f"<{tag}{start}>\n{inner}</{tag}>\n")
            items.clear()

    levels = sorted({len(m[1]) for line in text.splitlines() if (m := _HEADING.fullmatch(line.strip()))})
    for line in text.splitlines():
        if not line.strip() or _RULE.fullmatch(line):
            close()
        elif (match := _HEADING.fullmatch(line.strip())) is not None:
            close()
            level = min(6, heading + levels.index(len(match[1])))
            found.append(f"<h{level}>{inline_html(match[2], link)}</h{level}>\n")
        elif (match := _ITEM.fullmatch(line)) is not None:
            if lines or (items and (first is None) != (match[1] is None)):
                close()
            if not items:
                first = match[1]
            items.append(match[2])
        elif items and line[:1].isspace():
            items[-1] += " " + line.strip()
        else:
            if items:
                close()
            lines.append(line.strip())
    close()
    return "".join(found)


def inline_html(text: str, link: Link) -> str:
    """One line: code, strong, emphasis, and numbers in brackets as links."""
    pieces = _CODE.split(text)
    for n, piece in enumerate(pieces):
        if n % 2:
            pieces[n] = f"<code>{escaped(piece, quotes=False)}</code>"
        else:
            shown = _EMPHASIS.sub(r"<em>\1</em>", _STRONG.sub(r"<strong>\1</strong>", escaped(piece, quotes=False)))
            pieces[n] = _BRACKET.sub(lambda match: _linked(match, link), shown)
    return "".join(pieces)


def _linked(match: re.Match[str], link: Link) -> str:
    """The bracket with each number in it that has a link made one."""
    linked = _NUMBER.sub(lambda number: link(number.group()) or number.group(), match[1])
    return f"[{linked}]"
