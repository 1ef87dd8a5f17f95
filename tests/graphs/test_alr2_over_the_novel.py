"""alr2 with the embedded model over the example novel: it works, and what it cites stands there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coa.api import ask, open_document
from coa.config import Settings
from coa.testing.models import test_model_path as model_path

NOVEL = Path(__file__).parents[2] / "examples" / "novel"


@pytest.mark.slow
async def test_the_embedded_model_answers_from_evidence_of_the_novel_and_cites_it(tmp_path: Path) -> None:
    lines = (NOVEL / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    question = json.loads(lines[0])
    settings = Settings(home=tmp_path, model=str(model_path()))
    document = await open_document(NOVEL / "the-salt-ledger.txt", settings)
    answer = await ask(document, question["question"], strategy="alr2", home=tmp_path, model=settings.model)
    assert answer.coverage.complete
    assert answer.verdict == "answered"
    assert answer.citations
    for citation in answer.citations:
        assert document.text[citation.start : citation.end] == citation.quote
    cited = " ".join(" ".join(c.quote.split()) for c in answer.citations)
    assert " ".join(question["evidence"][0].split()) in cited
