"""Headings of a PDF without an outline, by the size and weight of their type."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from coa.documents.formats.pdf_paragraphs import Measures
from coa.documents.formats.pdf_text import Line

__all__ = ["mark_headings"]

_LARGER_RATIO = 1.12
_LONGEST = 120
_MOST_LINES = 3
# Headings are rarer than this among the lines of a text.
_MOST_RATIO = 0.15
_FEWEST = 2
_DEEPEST = 4


def mark_headings(pages: Sequence[list[Line]], measures: Measures) -> None:
    """Sets `Line.level` of headings: short lines in larger type, then lines in bold that stand alone.

    The largest type has level 1. A size of type that is used once (a title page's) makes no level.
    """
    groups: dict[tuple[float, bool], list[list[Line]]] = defaultdict(list)
    n_lines = sum(len(lines) for lines in pages)
    for lines in pages:
        for group in _groups(lines, measures):
            groups[round(group[0].size * 2) / 2, group[0].bold].append(group)
    usable = [key for key, found in groups.items() if len(found) >= _FEWEST]
    ranked = sorted((key for key in usable if _is_larger(key[0], measures)), reverse=True)
    if not measures.bold:
        ranked += [key for key in sorted(usable, reverse=True) if key[1] and not _is_larger(key[0], measures)]
    level = n_headings = 0
    for key in ranked:
        found = groups[key]
        if sum(len(group) for group in found) > _MOST_RATIO * n_lines or _repeats(found):
            continue
        level += 1
        if level > _DEEPEST:
            break
        for group in found:
            n_headings += 1
            group[0].opens = level
            for line in group:
                line.level, line.title_of = level, n_headings


def _is_larger(size: float, measures: Measures) -> bool:
    return size >= _LARGER_RATIO * measures.size


def _groups(lines: list[Line], measures: Measures) -> list[list[Line]]:
    """Lines of one size and weight that follow each other and look like a heading."""
    found: list[list[Line]] = []
    at = 0
    while at < len(lines):
        end = at + 1
        while end < len(lines) and _alike(lines[end - 1], lines[end]):
            end += 1
        group = lines[at:end]
        if _may_be_heading(group, measures) and (_is_larger(group[0].size, measures) or _stands_alone(lines, at, end)):
            found.append(group)
        at = end
    return found


def _alike(before: Line, line: Line) -> bool:
    close = 0 <= before.bottom - line.bottom < 2 * line.size
    return close and before.column == line.column and abs(before.size - line.size) < 0.5 and before.bold == line.bold


def _may_be_heading(group: list[Line], measures: Measures) -> bool:
    text = " ".join(line.text for line in group)
    larger = _is_larger(group[0].size, measures)
    if len(group) > _MOST_LINES or len(text) > _LONGEST or not any(c.isalnum() for c in text):
        return False
    if not larger and (not group[0].bold or text[-1] in ".,;:" or (group[0].fixed and not measures.fixed)):
        return False
    return text[0].isupper() or text[0].isdigit() or not text[0].isalpha() or not text[0].islower()


def _stands_alone(lines: list[Line], at: int, end: int) -> bool:
    """True where there is more space than usual above, or the page begins."""
    if at == 0:
        return True
    gap = lines[at - 1].bottom - lines[at].bottom
    return gap > 1.4 * lines[at].size or gap < 0


def _repeats(found: list[list[Line]]) -> bool:
    """True where most are the same words: labels such as "Note" or a table's head."""
    texts = Counter(" ".join(line.text for line in group) for group in found)
    return len(found) > 3 and texts.most_common(1)[0][1] * 2 > len(found)
