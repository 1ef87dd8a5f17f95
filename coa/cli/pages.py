"""Answers as HTML pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coa.config import Settings
    from coa.types import Answer, Document

__all__ = ["page_of"]


def page_of(settings: Settings, document: Document) -> Callable[[Sequence[Answer]], str]:
    """What writes answers about `document` as one page, from what their runs have stored."""

    def written(answers: Sequence[Answer]) -> str:
        from coa.report.facts import facts_of
        from coa.report.run_page import run_page
        from coa.runs import RunStore

        store = RunStore(settings.home)
        return run_page([facts_of(store, answer.run_id, document=document) for answer in answers])

    return written
