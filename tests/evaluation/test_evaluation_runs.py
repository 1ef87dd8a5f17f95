"""Whole evaluations over a server that knows every answer: what it must score, what it keeps, how it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coa.config import Settings
from coa.errors import BudgetExceeded, ConfigError
from coa.evaluation.ledger import Ledger
from coa.evaluation.running import Evaluation
from coa.evaluation.suite import load_suite, question_sets
from coa.evaluation.summary import Summary, summarise
from coa.llm.budget import Budget

pytestmark = pytest.mark.slow

SCORES = "em, f1, contains, abstention, wrong_refusal, evidence_recall, citation_precision, citation_recall, coverage"
WriteSuite = Callable[..., Path]


def _evaluation(suite_file: Path, settings: Settings, out: Path, **options: Any) -> Evaluation:
    suite = load_suite(suite_file)
    made = Evaluation(suite, question_sets(suite, suite_file.parent), settings, Ledger(out), **options)
    made.describe()
    return made


def _with_scores(file: Path, scores: str, *, documents: str = "") -> Path:
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("language: en}", f"language: en, metrics: [{scores}]{documents}}}"), encoding="utf-8")
    return file


def _mean(summary: Summary, arm: str, metric: str) -> float | None:
    cell = summary.cell("ferries", arm, metric)
    return None if cell is None else cell.estimate.mean


async def test_an_oracle_is_right_by_every_arm_and_score(
    suite_file: WriteSuite, settings: Settings, tmp_path: Path
) -> None:
    arms = (
        "  - strategies: [chain, alr2, direct]\n"
        "  - controls: [closed_book, full_context, bm25, single_chunk]\n"
        "settings: {preselect: never}\n"
    )
    file = _with_scores(suite_file(arms), SCORES, documents=", documents: [sound-1]")
    out = tmp_path / "out"
    made = _evaluation(file, settings, out, jobs=4)
    await made.run()
    summary = summarise(Ledger(out))

    assert summary.missing == 0
    for arm in summary.arms:
        for metric in ("em", "f1", "contains", "abstention"):
            assert _mean(summary, arm, metric) == 1, (arm, metric)
        assert _mean(summary, arm, "wrong_refusal") == 0
        cites = 0 if arm == "closed_book" else 1
        for metric in ("evidence_recall", "citation_precision", "citation_recall"):
            assert _mean(summary, arm, metric) == cites, (arm, metric)
    for arm in ("chain", "alr2", "direct", "full_context"):
        assert _mean(summary, arm, "coverage") == 1, arm
    assert _mean(summary, "closed_book", "coverage") == 0
    partly = _mean(summary, "single_chunk", "coverage")
    assert partly is not None
    assert 0 < partly < 1

    costs = {c.arm: c for c in summary.costs}
    assert costs["closed_book"].usage.calls == costs["full_context"].usage.calls == 3
    assert costs["chain"].usage.calls > costs["single_chunk"].usage.calls > 3
    assert all(c.usage.cost_usd and c.usage.cost_usd > 0 for c in costs.values())

    calls = list(Ledger(out).calls())
    assert len(calls) == sum(c.usage.calls for c in costs.values())
    prefixes = {p["sha256"]: p["text"] for p in map(json.loads, (out / "prefixes.jsonl").read_text().splitlines())}
    items = {item.key for item in made.items}
    for call in calls:
        assert call["item"] in items
        assert call["reply"]
        assert call["prefix"] is None or prefixes[call["prefix"]].startswith("Source text")


async def test_an_evaluation_that_was_stopped_pays_nothing_twice(
    suite_file: WriteSuite, settings: Settings, tmp_path: Path
) -> None:
    file = _with_scores(
        suite_file("  - strategies: [chain]\n  - controls: [single_chunk]\n"), "em", documents=", documents: [sound-0]"
    )
    whole = _evaluation(file, settings, tmp_path / "whole")
    n_calls = (await whole.run()).calls

    out, limit, stops = tmp_path / "parts", 0, 0
    while True:
        limit += 5
        made = _evaluation(file, settings, out, budget=Budget(max_calls=limit))
        try:
            spent = await made.run()
            break
        except BudgetExceeded:
            stops += 1
            assert Ledger(out).spent().calls <= limit
    assert stops > 1
    assert spent.calls == n_calls
    asked = [(c["item"], c["prefix"], c["tail"]) for c in Ledger(out).calls()]
    assert len(set(asked)) == len(asked)
    assert (await _evaluation(file, settings, out).run()).calls == n_calls  # nothing is left to ask

    before, after = summarise(Ledger(tmp_path / "whole")), summarise(Ledger(out))
    assert [s.scores for s in before.scored] == [s.scores for s in after.scored]


async def test_controls_read_what_they_say(suite_file: WriteSuite, settings: Settings, tmp_path: Path) -> None:
    arms = (
        "  - controls: [full_context]\n    options: {small: {window: 1600, chunk_tokens: 150}}\n"
        "  - controls: [bm25]\n    options: {one: {top_k: 1, chunk_tokens: 150}}\n"
    )
    file = _with_scores(suite_file(arms), "em, coverage", documents=", documents: [sound-2], kinds: [who]")
    out = tmp_path / "out"
    made = _evaluation(file, settings, out)
    await made.run()
    prefixes = {p["sha256"]: p["text"] for p in map(json.loads, (out / "prefixes.jsonl").read_text().splitlines())}
    shown = {call["item"]: prefixes[call["prefix"]] for call in Ledger(out).calls()}
    both_ends, passage = (shown[item.key] for item in made.items)
    assert "On day 0 " in both_ends
    assert "On day 39 " in both_ends
    assert "[…]" in both_ends  # the middle is left out, and that is shown
    assert "On day 20 " not in both_ends
    assert "lighthouse key of sound 2" in passage
    assert "On day 39 " not in passage
    by_arm = {s.arm: s for s in summarise(Ledger(out)).scored}
    assert by_arm["bm25+one"].scores["em"] == 1
    assert 0 < by_arm["full_context+small"].scores["coverage"] < 1
    assert by_arm["full_context+small"].answer is not None
    assert by_arm["full_context+small"].answer.coverage.complete  # left out on purpose, not skipped


async def test_a_limit_in_tokens_or_dollars_is_kept(suite_file: WriteSuite, settings: Settings, tmp_path: Path) -> None:
    file = suite_file("  - controls: [closed_book]\n")
    for n, budget in enumerate((Budget(max_tokens_total=1500), Budget(max_cost_usd=0.0005))):
        ledger = Ledger(tmp_path / str(n))
        with pytest.raises(BudgetExceeded, match="the limit of"):
            await _evaluation(file, settings, ledger.folder, budget=budget).run()
        spent = ledger.spent()
        assert 0 < spent.calls < 9
        assert spent.prompt_tokens + spent.completion_tokens <= 1500
        assert spent.cost_usd is not None
        assert spent.cost_usd <= 0.0005


async def test_a_document_that_does_not_fit_counts_as_wrong_and_can_be_asked_again(
    suite_file: WriteSuite, settings: Settings, tmp_path: Path
) -> None:
    file = _with_scores(
        suite_file("  - strategies: [direct]\n    options: {small: {window: 1200}}\n"), "em, wrong_refusal"
    )
    out = tmp_path / "out"
    await _evaluation(file, settings, out).run()
    summary = summarise(Ledger(out))
    assert _mean(summary, "direct+small", "em") == 0
    assert _mean(summary, "direct+small", "wrong_refusal") is None
    assert {s.error.split(":")[0] for s in summary.scored if s.error is not None} == {"LimitsError"}
    assert summary.costs[0].failed == summary.costs[0].asked == 9
    made = _evaluation(file, settings, out)
    assert made.n_finished() == 9
    assert _evaluation(file, settings, out, retry_failed=True).n_finished() == 0


async def test_a_judge_is_asked_once_an_answer(suite_file: WriteSuite, settings: Settings, tmp_path: Path) -> None:
    file = _with_scores(suite_file("  - controls: [closed_book]\n", more="judge: {model: oracle}\n"), "judged_correct")
    out = tmp_path / "out"
    # The oracle takes a judge's prompt for one of coa's and refuses: no clear word, so no score and no error.
    spent = await _evaluation(file, settings, out).run()
    assert spent.calls == 9 + 6  # unanswerable ones are judged without a call
    summary = summarise(Ledger(out))
    cell = summary.cell("ferries", "closed_book", "judged_correct")
    assert cell is not None
    assert (cell.estimate.mean, cell.estimate.n) == (1, 3)


def test_scores_by_a_judge_need_one(suite_file: WriteSuite, settings: Settings, tmp_path: Path) -> None:
    file = _with_scores(suite_file("  - controls: [closed_book]\n"), "judged_correct")
    with pytest.raises(ConfigError, match="judged_correct needs a judge"):
        _evaluation(file, settings, tmp_path / "out")


async def test_an_arm_of_another_name_is_refused(suite_file: WriteSuite, settings: Settings, tmp_path: Path) -> None:
    made = _evaluation(suite_file("  - controls: [closed_book]\n"), settings, tmp_path / "out")
    with pytest.raises(ConfigError, match="no arm 'chain'"):
        await made.run(only=["chain"])
