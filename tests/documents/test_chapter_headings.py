"""Chapters of plain text."""

from __future__ import annotations

import pytest

from coa.documents import read_document
from coa.documents.numbers import chinese_number, parse_number, roman_number
from coa.types import Document

BODY = (
    "It was a long day and nobody knew what to do about it. " * 12
    + "\n\n"
    + "Then the rain came down upon the roofs of the town. " * 12
    + "\n\n"
)
CHINESE_BODY = "却说美猴王荣归故里，自剿了混世魔王，夺了一口大刀，逐日操演武艺。\n" * 12


def _book(*headings: str, front: str = "", body: str = BODY) -> Document:
    return read_document((front + "".join(f"{h}\n\n{body}" for h in headings)).encode())


def _titles(document: Document, kind: str = "chapter") -> list[str]:
    return [s.title for s in document.sections if s.kind == kind]


def _numbers(document: Document) -> list[int | None]:
    return [s.number for s in document.sections if s.kind == "chapter"]


@pytest.mark.parametrize(
    ("headings", "method", "title"),
    [
        (["CHAPTER I. The Pond", "CHAPTER II. The Well", "CHAPTER III. The Sea"], "chapter", "CHAPTER I. The Pond"),
        (["Chapter 1.\nThe Pond", "Chapter 2.\nThe Well", "Chapter 3.\nThe Sea"], "chapter", "Chapter 1. The Pond"),
        (["Chapter One\n\nThe Pond", "Chapter Two\n\nThe Well"], "chapter", "Chapter One. The Pond"),
        (["Chapter 1", "Chapter 2", "Chapter 3"], "chapter", "Chapter 1"),
        (["Erstes Kapitel", "Zweites Kapitel", "Drittes Kapitel"], "chapter", "Erstes Kapitel"),
        (["1. Kapitel", "2. Kapitel", "3. Kapitel"], "chapter", "1. Kapitel"),
        (["Chapitre premier", "Chapitre II", "Chapitre III"], "chapter", "Chapitre premier"),
        (["Capítulo primero", "Capítulo II", "Capítulo III"], "chapter", "Capítulo primero"),
        (["Глава первая", "Глава вторая", "Глава III"], "chapter", "Глава первая"),
        (["I.", "II.", "III."], "roman", "I."),
        (["-I-\n\nPerdido", "-II-\n\nGuiado", "-III-\n\nTrabajo"], "roman", "I. Perdido"),
        (["I\n\nDANS LEQUEL ON\nPART", "II\n\nOÙ L'ON VA", "III\n\nFIN"], "roman", "I. DANS LEQUEL ON PART"),
        (["I. THE POND", "II. THE WELL", "III. THE SEA"], "roman-title", "I. THE POND"),
        (["1", "2", "3"], "digits", "1"),
        (["ONE", "TWO", "THREE"], "word", "ONE"),
    ],
)
def test_headings_of_many_styles(headings: list[str], method: str, title: str) -> None:
    document = _book(*headings)
    assert document.chapter_method == f"headings:{method}"
    assert _titles(document)[0] == title
    assert _numbers(document) == list(range(1, len(headings) + 1))


@pytest.mark.parametrize(
    "headings", [["第一回 灵根", "第二回 悟彻", "第三回 四海"], ["第1章　始", "第２章　中", "第3章"]]
)
def test_chinese_headings_need_no_blank_lines(headings: list[str]) -> None:
    document = read_document("".join(f"{h}\n{CHINESE_BODY}" for h in headings).encode())
    assert document.chapter_method == "headings:cjk"
    assert _numbers(document) == [1, 2, 3]


def test_sections_cover_the_readable_text() -> None:
    document = _book("Chapter 1", "Chapter 2", "Chapter 3", front="THE BOOK\n\nby Nobody\n\n")
    spans = [s.span for s in document.sections]
    assert [s.start for s in spans[1:]] == [s.end for s in spans[:-1]]
    assert (spans[0].start, spans[-1].end) == (0, len(document.text))
    assert document.sections[0].kind == "front"
    assert document.title == "THE BOOK"
    assert document.text[spans[1].start :].startswith("Chapter 1")


@pytest.mark.parametrize(
    "contents",
    [
        "Contents\n\nChapter 1. The Pond\nChapter 2. The Well\nChapter 3. The Sea\n\n",
        "Contents\n\nChapter 1. The Pond .... 3\n\nChapter 2. The Well .... 17\n\nChapter 3. The Sea .... 30\n\n",
        "I THE POND\n\nII THE WELL\n\nIII THE SEA\n\n",
    ],
)
def test_a_table_of_contents_is_front_matter(contents: str) -> None:
    document = _book("Chapter 1. The Pond", "Chapter 2. The Well", "Chapter 3. The Sea", front="A Book\n\n" + contents)
    assert _titles(document) == ["Chapter 1. The Pond", "Chapter 2. The Well", "Chapter 3. The Sea"]
    assert "The Pond" in document.text[: document.sections[0].span.end] or "POND" in contents


def test_unnumbered_chapters_are_found_by_the_table_of_contents() -> None:
    document = _book("Down the River", "The Mill", "HOME", front="Contents\n\nDown the River\nThe Mill ... 9\nHome\n\n")
    assert document.chapter_method == "contents"
    assert _titles(document) == ["Down the River", "The Mill", "HOME"]


def test_parts_stand_above_chapters() -> None:
    document = _book("PART ONE\n\nCHAPTER I", "CHAPTER II", "PART TWO\n\nCHAPTER I", "CHAPTER II")
    assert [(s.kind, s.level, s.title) for s in document.sections][:3] == [
        ("part", 1, "PART ONE"),
        ("chapter", 2, "CHAPTER I"),
        ("chapter", 2, "CHAPTER II"),
    ]
    inner = document.section_at(document.text.index("CHAPTER II") + 50)
    assert inner is not None
    assert inner.title == "CHAPTER II"
    outermost = [s.span for s in document.sections if s.level == 1]
    assert outermost[0].end == outermost[1].start
    assert outermost[1].end == len(document.text)


def test_prologue_and_epilogue_and_notes_are_sections() -> None:
    document = _book("Preface", "Prologue", "Chapter 1", "Chapter 2", "Epilogue", "Notes")
    assert [(s.title, s.kind) for s in document.sections] == [
        ("Preface", "front"),
        ("Prologue", "chapter"),
        ("Chapter 1", "chapter"),
        ("Chapter 2", "chapter"),
        ("Epilogue", "chapter"),
        ("Notes", "back"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        BODY * 3,
        BODY + "".join(f"{i}. Do this.\n\n" for i in range(1, 9)) + BODY,  # a list
        BODY + "I\n\n" + BODY + "V\n\n" + BODY,  # no sequence
        "".join(f"{i}\n\nA verse or two.\n\n" for i in range(1, 200)),  # verses
        BODY + "Chapter 3 deals with the sea.\n\n" + BODY + "chapter two of the book\n\n" + BODY,  # prose
        BODY + "Chapter 1\n\n" + BODY * 30 + "Chapter 2\n\n" + BODY + "Chapter 3\n\n" + BODY,  # one holds nearly all
    ],
)
def test_what_is_no_chapter_makes_one_body(text: str) -> None:
    document = read_document(text.encode())
    assert document.chapter_method == "none"
    assert [s.kind for s in document.sections] == ["body"]
    assert document.sections[0].span == (0, len(document.text))


def test_running_heads_do_not_repeat_a_chapter() -> None:
    document = _book("CHAPTER I", "CHAPTER I", "CHAPTER II", "CHAPTER II", "CHAPTER III")
    assert _numbers(document) == [1, 2, 3]


def test_a_dialogue_line_of_one_letter_is_no_chapter() -> None:
    document = _book("I", "II", "III", front=BODY + "I\n\n" + "I think so.\n\n")
    assert _numbers(document) == [1, 2, 3]


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("XIV", 14),
        ("xxxix", 39),
        ("twenty-one", 21),
        ("Ninetieth", 90),
        ("Siebentes", 7),
        ("zwölfter", 12),
        ("premier", 1),
        ("DIX-SEPTIÈME", 17),
        ("Séptimo", 7),
        ("12.", 12),
        ("3rd", 3),
        ("mix", None),
        ("IIX", None),
        ("Iv", None),
    ],
)
def test_numbers_of_headings(word: str, number: int | None) -> None:
    assert parse_number(word) == number


@pytest.mark.parametrize(
    ("word", "n"), [("十二", 12), ("一百零八", 108), ("二十", 20), ("一〇〇", 100), ("１２", 12), ("好", None)]
)
def test_chinese_numbers(word: str, n: int | None) -> None:
    assert chinese_number(word) == n


def test_roman_numbers_count_up() -> None:
    def write(n: int) -> str:
        parts = [(100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
        out = ""
        for value, letters in parts:
            out += letters * (n // value)
            n %= value
        return out

    assert [roman_number(write(n)) for n in range(1, 400)] == list(range(1, 400))
