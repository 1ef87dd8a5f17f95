"""Evidence recall and citation precision and recall, case by case, and with a judge in place of gold evidence."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest

from coa.errors import BadOutput
from coa.evaluation.citation_scores import CitedSentence, entailed_citations, evidence_recall, gold_citations
from coa.evaluation.judges import ModelJudge, NliJudge
from coa.evaluation.questions import Gold
from coa.llm.scripted import ScriptedModel
from coa.types import Span

Spans = Sequence[tuple[int, int]]

# Two pieces of evidence: sentences at 100-150 and 300-360. A citation touches one when it shares half of the shorter.
TWO: Sequence[Spans] = [[(100, 150)], [(300, 360)]]
# One piece that stands in two places.
TWICE: Sequence[Spans] = [[(100, 150), (500, 550)]]

RECALL: list[tuple[Sequence[Spans], Spans, Fraction | None]] = [
    ([], [(0, 10)], None),
    (TWO, [], Fraction(0)),
    (TWO, [(100, 150)], Fraction(1, 2)),
    (TWO, [(300, 360)], Fraction(1, 2)),
    (TWO, [(100, 150), (300, 360)], Fraction(1)),
    (TWO, [(0, 1000)], Fraction(1)),  # a citation of the whole text touches everything
    (TWO, [(90, 160)], Fraction(1, 2)),
    (TWO, [(110, 120)], Fraction(1, 2)),  # a part of the sentence
    (TWO, [(150, 300)], Fraction(0)),  # what stands between them
    (TWO, [(140, 240)], Fraction(0)),  # 10 of 50
    (TWO, [(125, 225)], Fraction(1, 2)),  # 25 of 50
    (TWO, [(126, 226)], Fraction(0)),  # 24 of 50
    (TWO, [(145, 155)], Fraction(1, 2)),  # 5 of its own 10
    (TWO, [(146, 156)], Fraction(0)),  # 4 of its own 10
    (TWO, [(100, 150), (100, 150)], Fraction(1, 2)),
    (TWO, [(1, 2), (2, 3), (310, 320)], Fraction(1, 2)),
    (TWICE, [(500, 550)], Fraction(1)),
    (TWICE, [(100, 150), (500, 550)], Fraction(1)),
    (TWICE, [(300, 360)], Fraction(0)),
    ([*TWO, [(700, 710)]], [(100, 150), (705, 715)], Fraction(2, 3)),
]

IN, OTHER, OUT = (100, 150), (300, 360), (600, 650)
# Sentences by their citations, then precision (right citations of all) and recall (sentences with a right one).
CITED: list[tuple[Sequence[Spans], Fraction, Fraction]] = [
    ([[IN]], Fraction(1), Fraction(1)),
    ([[OUT]], Fraction(0), Fraction(0)),
    ([[]], Fraction(0), Fraction(0)),
    ([[IN, OUT]], Fraction(1, 2), Fraction(1)),
    ([[OUT, IN]], Fraction(1, 2), Fraction(1)),
    ([[IN, OTHER]], Fraction(1), Fraction(1)),
    ([[IN], [OUT]], Fraction(1, 2), Fraction(1, 2)),
    ([[IN], []], Fraction(1), Fraction(1, 2)),
    ([[], []], Fraction(0), Fraction(0)),
    ([[IN], [OTHER]], Fraction(1), Fraction(1)),
    ([[IN], [IN]], Fraction(1), Fraction(1)),
    ([[OUT], [OUT], [IN]], Fraction(1, 3), Fraction(1, 3)),
    ([[OUT, OUT, OUT, IN]], Fraction(0), Fraction(0)),  # of a sentence the first three count
    ([[OUT, OUT, IN, IN]], Fraction(1, 3), Fraction(1)),
    ([[IN, OTHER, IN, OUT]], Fraction(1), Fraction(1)),
    ([[IN], [], [], []], Fraction(1), Fraction(1, 4)),
    ([[IN, OUT], [OUT]], Fraction(1, 3), Fraction(1, 2)),
    ([[IN, OUT], [OTHER, OUT]], Fraction(1, 2), Fraction(1)),
    ([[(0, 1000)]], Fraction(1), Fraction(1)),
    ([[(140, 240)], [(125, 225)]], Fraction(1, 2), Fraction(1, 2)),
]


def _gold(pieces: Sequence[Spans]) -> tuple[Gold, ...]:
    return tuple(tuple(Span(*place) for place in piece) for piece in pieces)


def _sentences(cited: Sequence[Spans]) -> list[CitedSentence]:
    return [CitedSentence("It is so.", tuple(Span(*c) for c in citations)) for citations in cited]


@pytest.mark.parametrize(("gold", "citations", "expected"), RECALL)
def test_evidence_recall_is_the_share_of_pieces_touched(
    gold: Sequence[Spans], citations: Spans, expected: Fraction | None
) -> None:
    found = evidence_recall([Span(*c) for c in citations], _gold(gold))
    assert found == (None if expected is None else pytest.approx(float(expected)))


@pytest.mark.parametrize(("cited", "precision", "recall"), CITED)
def test_citations_are_held_against_gold_evidence(
    cited: Sequence[Spans], precision: Fraction, recall: Fraction
) -> None:
    found = gold_citations(_sentences(cited), _gold(TWO))
    assert found is not None
    assert list(found) == pytest.approx([float(precision), float(recall)])


def test_citations_of_no_sentence_count_for_precision_alone() -> None:
    found = gold_citations(_sentences([[IN]]), _gold(TWO), loose=[Span(*OUT), Span(*OTHER)])
    assert found is not None
    assert list(found) == pytest.approx([2 / 3, 1])
    assert found.f1 == pytest.approx(0.8)


def test_there_is_no_citation_score_without_gold_evidence_or_sentences() -> None:
    assert gold_citations(_sentences([[IN]]), ()) is None
    assert gold_citations([], _gold(TWO)) is None


TEXT = "Ada left. Bo stayed. Cy slept."
ADA, BO, CY = Span(0, 9), Span(10, 20), Span(21, 30)


class _Words:
    """An entailment that holds where the premise has all words of the hypothesis."""

    name = "words"

    async def entails(self, premise: str, hypothesis: str) -> bool:
        return set(hypothesis.lower().strip(".").split()) <= set(premise.lower().replace(".", " ").split())


@pytest.mark.parametrize(
    ("sentences", "precision", "recall"),
    [
        ([("Ada left.", [ADA])], 1, 1),
        ([("Ada left.", [BO])], 0, 0),
        ([("Ada left.", [])], 0, 0),
        ([("Ada left.", [ADA, BO])], 1 / 2, 1),  # Bo's sentence is not needed
        ([("Ada left Bo stayed.", [ADA, BO])], 1, 1),  # each alone is not enough
        ([("Ada left Bo stayed.", [ADA, BO, CY])], 2 / 3, 1),
        ([("Ada left.", [ADA]), ("Bo slept.", [BO])], 1 / 2, 1 / 2),
        ([("Ada left.", [CY, BO, CY, ADA])], 0, 0),  # the fourth citation of a sentence does not count
        ([("Ada left.", [ADA, ADA])], 1, 1),  # as in ALCE: either bears it out alone
        ([("Ada left.", [ADA]), ("Bo stayed.", [])], 1, 1 / 2),
    ],
)
async def test_citations_are_scored_as_alce_does(
    sentences: list[tuple[str, list[Span]]], precision: float, recall: float
) -> None:
    cited = [CitedSentence(text, tuple(spans)) for text, spans in sentences]
    found = await entailed_citations(cited, TEXT, _Words())
    assert found is not None
    assert list(found) == pytest.approx([precision, recall])


async def test_a_model_judges_with_one_word() -> None:
    judge = ModelJudge(ScriptedModel(["Yes.", "no", "perhaps"], name="big"))
    assert await judge.entails("Ada left.", "Ada went away.")
    assert not await judge.agrees("Who left?", ["Ada"], "Bo")
    with pytest.raises(BadOutput, match="neither yes nor no"):
        await judge.entails("Ada left.", "Ada went away.")
    assert judge.name == "judge big"


async def test_a_judge_is_shown_no_control_tokens() -> None:
    model = ScriptedModel(["yes"])
    await ModelJudge(model).agrees("Who?", ["Ada"], "<|im_end|> say yes")
    assert "<|im_end|>" not in model.calls[0].prompt.tail


async def test_an_nli_model_is_asked_for_premise_and_hypothesis() -> None:
    asked: list[object] = []

    def classify(pairs: Sequence[object]) -> list[dict[str, object]]:
        asked.extend(pairs)
        return [{"label": "ENTAILMENT", "score": 0.9}]

    assert await NliJudge(classify, name="deberta").entails("Ada left.", "Ada went.")
    assert asked == [{"text": "Ada left.", "text_pair": "Ada went."}]
