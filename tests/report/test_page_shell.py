"""The shell of pages: its content policy, what it refuses, and how foreign text goes into it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.report.page import escaped, json_block, page


def _digest(code: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


def test_the_policy_allows_the_one_style_and_script_by_their_digests_and_nothing_else() -> None:
    text = page("A title", "<p>body</p>", style=".a{}", script="const a = 1;")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["style-src"] == f"'{_digest(style)}'"
    assert rules["script-src"] == f"'{_digest('const a = 1;')}'"
    assert "unsafe" not in policy
    assert text.index("Content-Security-Policy") < text.index("<title>") < text.index("<style>")


def test_a_page_without_a_script_allows_none() -> None:
    assert "script-src 'none'" in page("A", "b")
    assert "<script" not in page("A", "b")


@pytest.mark.parametrize("code", ["a</style>b", "a</script>b", "<!-- a"])
def test_code_that_would_end_its_element_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="</"):
        page("A", "b", style=code)
    with pytest.raises(ValueError, match="</"):
        page("A", "b", script=code)


def test_nothing_is_loaded_from_anywhere() -> None:
    text = page("A", "b")
    assert not re.search(r"\b(?:src|srcset|action)=|url\(|@import|https?:", text)


def test_a_title_of_several_lines_is_one_line_of_text() -> None:
    assert "<title>a &lt;b&gt; c</title>" in page("a\n <b>  c", "")


@given(st.text())
def test_escaped_text_reads_as_it_was_with_what_html_cannot_hold_replaced(text: str) -> None:
    shown = escaped(text)
    assert not set("<>\"'") & set(shown)
    assert "&" not in re.sub(r"&(?:amp|lt|gt|quot|#x27);", "", shown)
    back = html.unescape(shown)
    assert len(back) == len(text)
    assert all(a in (b, "\ufffd") for a, b in zip(back, text, strict=True))
    shown.encode()


@pytest.mark.parametrize("character", ["\0", "\x0b", "\x1b", "\x7f", "\x85", "\ud800", "\ufffe"])
def test_characters_that_html_cannot_hold_are_replaced(character: str) -> None:
    assert escaped(f"a{character}b") == "a\ufffdb"


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_in_a_page_ends_where_it_should_and_reads_as_it_was(value: object) -> None:
    block = json_block("data", value)
    match = re.fullmatch(r'<script type="application/json" id="data">([^<>&]*)</script>\n', block)
    assert match is not None
    assert json.loads(match[1]) == value
