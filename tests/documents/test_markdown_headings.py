"""Markdown: telling it, and its sections."""

from __future__ import annotations

from coa.documents import read_document
from coa.types import Document

BODY = "Some words that stand here. " * 20 + "\n\n"


def _read(text: str, name: str = "x.md") -> Document:
    return read_document(text.encode(), name=name)


def _outline(document: Document) -> list[tuple[str, int]]:
    return [(s.title, s.level) for s in document.sections]


def test_atx_and_setext_headings_become_nested_sections() -> None:
    document = _read(f"# Guide\n\nHello.\n\n## One ##\n\n{BODY}### Sub *part*\n\n{BODY}Two\n---\n\n{BODY}")
    assert document.chapter_method == "markdown"
    assert document.media_type == "text/markdown"
    assert document.title == "Guide"
    assert _outline(document) == [("", 1), ("One", 1), ("Sub part", 2), ("Two", 1)]
    one, sub, two = document.sections[1:]
    assert sub.span.end == one.span.end == two.span.start


def test_headings_inside_fences_code_and_front_matter_are_none() -> None:
    text = f"---\ntitle: x\n# no\n---\n# A\n\n~~~~sh\n# no\n~~~\n# no\n~~~~\n\n    # no\n\n#no\n\n# B\n\n{BODY}"
    assert [t for t, _ in _outline(_read(text)) if t] == ["A", "B"]


def test_an_unclosed_fence_hides_the_rest() -> None:
    assert [t for t, _ in _outline(_read("# A\n\n# B\n\n```\n# no\n")) if t] == ["A", "B"]


def test_a_rule_below_a_paragraph_or_a_list_is_no_heading() -> None:
    text = f"# A\n\ntwo\nlines\n---\n\n- item\n---\n\n> quote\n---\n\n# B\n\n{BODY}"
    assert _outline(_read(text)) == [("A", 1), ("B", 1)]


def test_markdown_is_told_by_content() -> None:
    text = f"# One\n\n{BODY}# Two\n\n{BODY}# Three\n\n{BODY}"
    assert _read(text, "story.txt").chapter_method == "markdown"
    plain = _read(f"Chapter 1\n\n{BODY}Chapter 2\n\n{BODY}", "story.md")
    assert (plain.media_type, plain.chapter_method) == ("text/plain", "headings:chapter")


def test_scripts_with_comments_are_no_markdown() -> None:
    script = "# set it up\nimport os\n\n# go\ndef f():\n    return 1\n\n" * 10
    assert _read(script, "x.py").media_type == "text/plain"


def test_chapter_numbers_are_taken_from_the_titles() -> None:
    document = _read(f"# Chapter 1: A\n\n{BODY}# Chapter 2: B\n\n{BODY}# III. C\n\n{BODY}# Notes\n\n{BODY}")
    assert [s.number for s in document.sections] == [1, 2, 3, None]


def test_outermost_sections_cover_the_text_whatever_the_levels() -> None:
    document = _read(f"intro\n\n### deep\n\n{BODY}# A\n\n{BODY}#### deeper\n\n{BODY}# B\n\n{BODY}")
    outermost = [s.span for s in document.sections if s.level == 1]
    assert outermost[0].start == 0
    assert outermost[-1].end == len(document.text)
    assert [s.end for s in outermost[:-1]] == [s.start for s in outermost[1:]]
