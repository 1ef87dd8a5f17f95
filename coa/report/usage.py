"""What a run took, and how it was made, as tables."""

from __future__ import annotations

from coa.report.facts import RunFacts, cached_share
from coa.report.page import escaped
from coa.report.timeline import duration

__all__ = ["cost", "usage_html"]


def usage_html(facts: RunFacts) -> str:
    """Calls, tokens, cost and time, beside what was expected; then what it was made with."""
    usage, record, answer = facts.usage, facts.record, facts.answer
    expected = record.estimate
    share = cached_share(usage)
    rows = [
        ("Calls", f"{usage.calls:,}", f"{expected.calls:,}" if expected else ""),
        ("Replies kept from before", f"{usage.reused:,}", "") if usage.reused else None,
        ("Prompt tokens", f"{usage.prompt_tokens:,}", f"{expected.prompt_tokens:,}" if expected else ""),
        ("of these cached", f"{usage.cached_tokens:,}" + (f" ({share:.0%})" if share is not None else ""), ""),
        ("of these computed", f"{usage.prompt_tokens - usage.cached_tokens:,}", ""),
        (
            "Completion tokens",
            f"{usage.completion_tokens:,}",
            f"at most {expected.completion_tokens_max:,}" if expected else "",
        ),
        ("of these thoughts", f"{usage.reasoning_tokens:,}", "") if usage.reasoning_tokens else None,
        ("Cost", cost(usage.cost_usd), ""),
        ("Time in models", duration(usage.seconds), ""),
        ("Time in all", duration(answer.seconds), "") if answer is not None else None,
    ]
    head = '<thead><tr><td></td><th class="number">taken</th><th class="number">expected</th></tr></thead>\n'
    lines = "".join(
        f'<tr><th scope="row">{name}</th><td class="number">{taken}</td>'
        + (f'<td class="number">{wanted}</td>' if expected else "")
        + "</tr>\n"
        for name, taken, wanted in filter(None, rows)
    )
    table = f'<table class="usage">\n{head if expected else ""}<tbody>\n{lines}</tbody></table>'
    return f'<div class="wide">{table}</div>\n{_made(facts)}'


def cost(cost_usd: float | None) -> str:
    """A price for people; None is "unknown price", 0 is "free"."""
    if cost_usd is None:
        return "unknown price"
    return "free" if cost_usd == 0 else f"${cost_usd:.4f}" if cost_usd < 1 else f"${cost_usd:,.2f}"


def _made(facts: RunFacts) -> str:
    """Model, strategy, coverage and versions."""
    record, answer, document = facts.record, facts.answer, facts.document
    strategy, why = record.strategy, ""
    coverage = f"{record.n_done:,} of {facts.plan.n_chunks:,} chunks read"
    if answer is not None:
        strategy, why = answer.strategy, f" ({answer.strategy_reason})" if answer.strategy_reason else ""
        read = answer.coverage
        coverage = f"{read.read:,} of {read.chunks:,} chunks read"
        coverage += f", {read.unselected:,} left out as of no use" if read.unselected else ""
        coverage += f", {len(read.skipped):,} skipped" if read.skipped else ""
    counted = "" if facts.plan.exact else ", estimated"
    rows = {
        "Model": record.model,
        "Strategy": strategy + why,
        "Coverage": coverage,
        "Text": f"{document.name}, {facts.plan.n_tokens:,} tokens in chunks (by {facts.plan.tokenizer}{counted})",
        "Run": f"{record.run_id}, {record.state}, {record.created}",
        "SHA-256 of the text": document.sha256,
        "Prompts": ", ".join(f"{name} {digest}" for name, digest in record.prompts.items()),
    }
    lines = "".join(
        f"<div><dt>{name}</dt><dd>{escaped(value, quotes=False)}</dd></div>\n" for name, value in rows.items() if value
    )
    return f'<details class="made"><summary>How it was made</summary>\n<dl>\n{lines}</dl></details>\n'
