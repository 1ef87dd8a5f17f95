"""What a model wrote as markup: the little Markdown that is known, everything else as it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.report.answer import answer_html, inline_html

Read = Callable[[str], Any]
_TAGS = {"p", "br", "ul", "ol", "li", "h3", "h4", "h5", "h6", "strong", "em", "code", "a"}


def _link(number: str) -> str | None:
    return f'<a href="#c{number}">{number}</a>' if number in {"1", "2", "3.7"} else None


@given(st.text("ab <>&\"'*_`#-1.[]()\n\t!", max_size=200))
def test_any_reply_becomes_the_known_elements_alone_and_loses_no_letter(read_page: Read, text: str) -> None:
    page = read_page(f"<main>{answer_html(text, _link)}</main>".replace("<br>", " "))
    assert {e.tag for e in page.elements[1:]} <= _TAGS
    assert all(set(e.attributes) <= {"href", "start"} for e in page.elements)
    kept = [c for c in text if c in "ab<>&\"'"]
    assert [c for c in page.elements[0].text if c in "ab<>&\"'"] == kept


def test_headings_lists_and_paragraphs() -> None:
    text = "## One\n\nHe *saw* it [1].\nThen **left** `home`.\n\n- a [3.7]\n  more\n- b\n\n3. x\n4. y\n\n# Top\n---\nz"
    assert answer_html(text, _link, heading=3).split("\n") == [
        "<h4>One</h4>",
        '<p>He <em>saw</em> it [<a href="#c1">1</a>].<br>',
        "Then <strong>left</strong> <code>home</code>.</p>",
        "<ul>",
        '<li>a [<a href="#c3.7">3.7</a>] more</li>',
        "<li>b</li>",
        "</ul>",
        '<ol start="3">',
        "<li>x</li>",
        "<li>y</li>",
        "</ol>",
        "<h3>Top</h3>",
        "<p>z</p>",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[1][2]", '[<a href="#c1">1</a>][<a href="#c2">2</a>]'),
        ("[1, 2]", '[<a href="#c1">1</a>, <a href="#c2">2</a>]'),
        ("[9]", "[9]"),
        ("[see](javascript:run)", "[see](javascript:run)"),
        ("`[1] **a**`", "<code>[1] **a**</code>"),
        ("2 * 3 * 4, snake_case_name", "2 * 3 * 4, snake_case_name"),
        ("<b onclick=run>", "&lt;b onclick=run&gt;"),
    ],
)
def test_numbers_in_brackets_are_links_where_there_is_something_to_link_to(text: str, shown: str) -> None:
    assert inline_html(text, _link) == shown
