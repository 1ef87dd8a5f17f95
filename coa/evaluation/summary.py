"""From a ledger to figures: scores by arm, kind, position and length, their intervals, costs, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from coa.evaluation.items import Told, question_from
from coa.evaluation.ledger import Ledger
from coa.evaluation.scoring import JUDGED, Reply, reply_of, scored
from coa.evaluation.statistics import Difference, Estimate, difference, estimated, holm
from coa.run_format import answer_from_json
from coa.types import Answer, Usage

__all__ = ["Cell", "Comparison", "Cost", "Scored", "Summary", "ordered_values", "slices_of", "summarise", "values_of"]

_POSITIONS = ("first fifth", "second fifth", "third fifth", "fourth fifth", "last fifth")
_LENGTHS = ((8_000, "up to 8k characters"), (32_000, "8k to 32k"), (128_000, "32k to 128k"), (512_000, "128k to 512k"))


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of one question put to one arm."""

    told: Told
    arm: str
    answer: Answer | None
    reply: Reply | None
    error: str | None
    seconds: float
    """Wall time."""
    scores: Mapping[str, float]

    @property
    def usage(self) -> Usage:
        """What the answer took; nothing is known of one that failed."""
        return self.answer.usage if self.answer is not None else Usage()


@dataclass(frozen=True, slots=True)
class Cell:
    """A score of an arm over a set, or over a slice of it."""

    set: str
    arm: str
    metric: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Cost:
    """What an arm took over a set; means are of questions with an answer."""

    set: str
    arm: str
    asked: int
    failed: int
    usage: Usage
    seconds: float
    """Wall time, summed over questions."""

    @property
    def answered(self) -> int:
        """Questions with an answer."""
        return self.asked - self.failed


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two arms over a set, by the set's first score."""

    set: str
    metric: str
    one: str
    other: str
    difference: Difference
    adjusted_p: float | None
    """After Holm, over the set's comparisons."""


@dataclass(frozen=True, slots=True)
class Summary:
    """An evaluation in figures."""

    suite: Mapping[str, Any]
    scored: Sequence[Scored] = field(repr=False)
    missing: int
    """Items without a result yet."""
    cells: Sequence[Cell]
    costs: Sequence[Cost]
    comparisons: Sequence[Comparison]
    by: Mapping[str, Mapping[str, Sequence[Cell]]]
    """Cells of each set's first score by "kind", "position" and "length", and within these by value."""

    def cell(self, set_name: str, arm: str, metric: str) -> Cell | None:
        """The cell of that place."""
        return next((c for c in self.cells if (c.set, c.arm, c.metric) == (set_name, arm, metric)), None)

    @property
    def arms(self) -> list[str]:
        """Names, in the suite's order."""
        return [str(arm["name"]) for arm in self.suite["arms"]]

    @property
    def sets(self) -> list[str]:
        """Names, in the suite's order."""
        return [str(one["name"]) for one in self.suite["sets"]]

    def metrics(self, set_name: str) -> list[str]:
        """The scores of a set that have a value, the one that counts first, first."""
        named = next(s["metrics"] for s in self.suite["sets"] if s["name"] == set_name)
        there = {c.metric for c in self.cells if c.set == set_name}
        return [m for m in [*named, "rouge_gm"] if m in there]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values; additive changes only."""

        def cell(one: Cell) -> dict[str, Any]:
            return {"set": one.set, "arm": one.arm, "metric": one.metric, **one.estimate._asdict()}

        return {
            "schema_version": 1,
            "suite": self.suite["name"],
            "judge": self.suite.get("judge"),
            "arms": self.suite["arms"],
            "sets": self.suite["sets"],
            "missing": self.missing,
            "scores": [cell(c) for c in self.cells],
            "by": {
                by: {value: [cell(c) for c in cells] for value, cells in found.items()} for by, found in self.by.items()
            },
            "costs": [{**asdict(c), "answered": c.answered} for c in self.costs],
            "comparisons": [
                {
                    "set": c.set,
                    "metric": c.metric,
                    "one": c.one,
                    "other": c.other,
                    **c.difference._asdict(),
                    "adjusted_p": c.adjusted_p,
                }
                for c in self.comparisons
            ],
        }


def summarise(ledger: Ledger) -> Summary:
    """The figures of what a ledger holds, a finished evaluation or not. Raises: ConfigError, StorageError."""
    suite = ledger.suite()
    questions = [question_from(line) for line in ledger.questions()]
    results, judged = ledger.results(), ledger.judgements()
    metrics = {s["name"]: s["metrics"] for s in suite["sets"]}
    found: list[Scored] = []
    missing = 0
    for arm in (str(a["name"]) for a in suite["arms"]):
        for told in questions:
            result = results.get(told.items[arm])
            if result is None:
                missing += 1
                continue
            found.append(_scored(told, arm, result, metrics[told.set], judged.get(told.items[arm])))
    resampling = {"seed": int(suite["seed"]), "resamples": int(suite["resamples"])}
    firsts = {name: names[0] for name, names in metrics.items() if names}
    return Summary(
        suite,
        found,
        missing,
        _cells(found, metrics, resampling),
        _costs(found),
        _comparisons(found, firsts, resampling),
        {by: _sliced(found, firsts, resampling, slice_) for by, slice_ in slices_of().items()},
    )


def slices_of() -> dict[str, Callable[[Scored], str | None]]:
    """What questions are told apart by, and the value of each; None where it is unknown."""
    return {
        "kind": lambda one: one.told.question.kind or None,
        "position": lambda one: None if one.told.position is None else _POSITIONS[min(4, int(one.told.position * 5))],
        "length": lambda one: next((name for most, name in _LENGTHS if one.told.n_chars <= most), "over 512k"),
    }


def ordered_values(by: str, values: Iterable[str]) -> list[str]:
    """Positions and lengths in their own order, kinds in the alphabet's."""
    order = {"position": list(_POSITIONS), "length": [*(name for _, name in _LENGTHS), "over 512k"]}.get(by)
    return sorted(values) if order is None else sorted(values, key=order.index)


def _scored(
    told: Told, arm: str, result: Mapping[str, Any], names: Sequence[str], judged: Mapping[str, Any] | None
) -> Scored:
    answer = None if result["answer"] is None else answer_from_json(dict(result["answer"]))
    reply = None if answer is None else reply_of(answer)
    wanted = [*names, *(["choice"] if "pair_accuracy" in names and "choice" not in names else [])]
    scores = scored(told.question, reply, wanted, language=told.language)
    if judged is not None:
        scores |= {name: value for name, value in judged["scores"].items() if name in names}
    elif answer is None:
        scores |= dict.fromkeys((name for name in names if name in JUDGED), 0.0)
    return Scored(told, arm, answer, reply, result["error"], float(result["seconds"]), scores)


def values_of(found: Iterable[Scored], metric: str) -> dict[str, dict[str, float]]:
    """A score by document and question; for pairs by document and pair."""
    values: dict[str, dict[str, float]] = {}
    for one in found:
        question = one.told.question
        if metric == "pair_accuracy":
            if question.pair is not None:
                of_document = values.setdefault(question.doc_id, {})
                of_document[question.pair] = min(of_document.get(question.pair, 1.0), one.scores.get("choice", 0.0))
        elif metric in one.scores:
            values.setdefault(question.doc_id, {})[question.id] = one.scores[metric]
    return values


def _estimate(found: Iterable[Scored], metric: str, resampling: Mapping[str, int]) -> Estimate | None:
    values = {doc: list(of.values()) for doc, of in values_of(found, metric).items()}
    return estimated(values, seed=resampling["seed"], resamples=resampling["resamples"]) if values else None


def _grouped(found: Iterable[Scored]) -> dict[tuple[str, str], list[Scored]]:
    groups: dict[tuple[str, str], list[Scored]] = {}
    for one in found:
        groups.setdefault((one.told.set, one.arm), []).append(one)
    return groups


def _cells(found: Sequence[Scored], metrics: Mapping[str, Sequence[str]], resampling: Mapping[str, int]) -> list[Cell]:
    cells: list[Cell] = []
    for (set_name, arm), group in _grouped(found).items():
        means: dict[str, Estimate] = {}
        for metric in metrics[set_name]:
            estimate = _estimate(group, metric, resampling)
            if estimate is not None:
                means[metric] = estimate
                cells.append(Cell(set_name, arm, metric, estimate))
        if {"rouge1", "rouge2", "rougeL"} <= means.keys():
            # SCROLLS and L-Eval take the geometric mean of the three means; an interval of it is not theirs.
            product = means["rouge1"].mean * means["rouge2"].mean * means["rougeL"].mean
            first = means["rouge1"]
            cells.append(
                Cell(set_name, arm, "rouge_gm", Estimate(product ** (1 / 3), None, None, first.n, first.documents))
            )
    return cells


def _costs(found: Sequence[Scored]) -> list[Cost]:
    costs = []
    for (set_name, arm), group in _grouped(found).items():
        usage = Usage()
        for one in group:
            usage = usage.merged(one.usage)
        failed = sum(one.answer is None for one in group)
        costs.append(Cost(set_name, arm, len(group), failed, usage, sum(one.seconds for one in group)))
    return costs


def _comparisons(found: Sequence[Scored], firsts: Mapping[str, str], resampling: Mapping[str, int]) -> list[Comparison]:
    groups = _grouped(found)
    comparisons: list[Comparison] = []
    for set_name, metric in firsts.items():
        arms = [arm for name, arm in groups if name == set_name]
        pairs: list[tuple[str, str, Difference]] = []
        for one, other in combinations(arms, 2):
            gap = difference(
                values_of(groups[set_name, one], metric),
                values_of(groups[set_name, other], metric),
                seed=resampling["seed"],
                resamples=resampling["resamples"],
            )
            if gap is not None:
                pairs.append((one, other, gap))
        adjusted = holm([gap.p for *_, gap in pairs])
        comparisons += [
            Comparison(set_name, metric, one, other, gap, p)
            for (one, other, gap), p in zip(pairs, adjusted, strict=True)
        ]
    return comparisons


def _sliced(
    found: Sequence[Scored],
    firsts: Mapping[str, str],
    resampling: Mapping[str, int],
    slice_: Callable[[Scored], str | None],
) -> dict[str, list[Cell]]:
    """Cells by the slice's value; pairs are told apart by their first claim's."""
    slices: dict[str, list[Cell]] = {}
    for (set_name, arm), group in _grouped(found).items():
        if set_name not in firsts:
            continue
        by_value: dict[str, list[Scored]] = {}
        for one in group:
            value = slice_(one)
            if value is not None:
                by_value.setdefault(value, []).append(one)
        for value, members in by_value.items():
            estimate = _estimate(members, firsts[set_name], resampling)
            if estimate is not None:
                slices.setdefault(value, []).append(Cell(set_name, arm, firsts[set_name], estimate))
    return slices
