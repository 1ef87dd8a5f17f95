"""The shell of every page that coa writes: one file that loads nothing and runs no script but its own.

What stands in a page's body is escaped by `escaped`. Should an escape be missing somewhere, the content policy still
names the page's one style sheet and one script by their digests: no other script, handler, style, frame, form, image or
address can act, and no string becomes markup later (trusted types). So a body carries no `style=` attribute: lengths
and colours of a drawing are attributes of its SVG.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from functools import cache
from importlib import resources

__all__ = ["escaped", "json_block", "page", "resource"]

# Not drawn by browsers or not allowed in HTML; tab and line feed stay. Lone surrogates have no UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def escaped(text: str, *, quotes: bool = True) -> str:
    """`text` as HTML text, or as the value of a quoted attribute; characters that HTML cannot hold become U+FFFD.

    `quotes` False saves room where it is no attribute's value.
    """
    return html.escape(_UNPRINTABLE.sub("\ufffd", text), quote=quotes)


def json_block(element_id: str, value: object) -> str:
    """`value` as JSON for the page's script: `JSON.parse(document.getElementById(element_id).textContent)`.

    No text in it can end the block, since "<", ">" and "&" are written as escapes of JSON.
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{escaped(element_id)}">{text}</script>\n'


def page(title: str, body: str, *, style: str = "", script: str = "", language: str = "en") -> str:
    """The whole file. `title` is plain text, `body` is markup with everything foreign in it escaped.

    `style` comes behind the sheet that all pages share (`page.css`: colours as variables for light and dark, tables,
    panels, focus, print), `script` runs when the body is there; it may not write markup (`innerHTML`). `language` is
    that of the page's own words; foreign text says its own with `lang`.

    Raises: ValueError for a style or script that would end its element.
    """
    sheet = resource("page.css") + style
    for code in (sheet, script):
        if "</" in code or "<!--" in code:
            raise ValueError("a style or script holds '</' or '<!--'")
    scripts = f"<script>{script}</script>\n" if script else ""
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_digest(sheet)}'",
            f"script-src '{_digest(script)}'" if script else "script-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    return (
        f'<!doctype html>\n<html lang="{escaped(language)}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escaped(' '.join(title.split()), quotes=False)}</title>\n<style>{sheet}</style>\n</head>\n"
        f"<body>\n{body}\n{scripts}</body>\n</html>\n"
    )


@cache
def resource(name: str) -> str:
    """The text of a style sheet or script beside this module."""
    return resources.files("coa.report").joinpath(name).read_text(encoding="utf-8")


def _digest(code: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
