"""Telling a note from a refusal.

A worker that finds nothing tends to say so instead of handing on what it was given; the next one repeats it,
and the answer becomes "not mentioned" although an early worker had found it (CoA, Zhang et al. 2024,
appendix F.4, "catastrophic collapse"). So a reply that is only a refusal leaves the unit as it was.
"""

from __future__ import annotations

import re

from coa.agents.references import without_references

__all__ = ["NO_INFORMATION", "is_refusal"]

NO_INFORMATION = "NO_INFORMATION"

_MARK = re.compile(r"\bno[_ ]information\b", re.IGNORECASE)
_WIDE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？\n]*")

# "Ahab did not say where he would sail" is news, "The text does not say" is none: what is denied counts only
# where the text, or the worker itself, is what denies it.
_TEXT = (
    r"\b(?:text|part|passage|chunk|chapter|section|excerpt|document|source|notes?|story|book|it|this|author|narrator)"
)
_THINGS = r"(?:mention|information|details?|evidence|answer|references?|relevant)"
_REFUSALS = re.compile(
    r"|".join(
        (
            r"\bnot (?:\w+ly )?(?:mentioned|stated|discussed|addressed|provided|specified|indicated|described)",
            _TEXT + r"\b (?:\w+ ){0,3}?(?:does|do|did|is|are|was|were|can|could)(?: not|n['’]t) (?:\w+ ){0,3}?"
            r"(?:mention|state|say|contain|provide|discuss|answer|address|specify|give|tell|clear|known|said|given)",
            r"\bquestions? (?:\w+ ){0,4}not (?:\w+ )?answer",
            r"\bcannot be (?:\w+ )?(?:answered|determined|inferred|known|found|said)",
            r"\b(?:i|we) (?:do not|don['’]t|can['’]t|cannot|could not|couldn['’]t) (?:\w+ )?"
            r"(?:know|have|find|see|answer|determine|help|say|tell)",
            r"\b(?:unable|impossible|not possible) to (?:answer|determine|say)",
            r"\b(?:there (?:is|are|was|were)|contains?|provides?|gives?|offers?|holds?|has|includes?) no (?:\w+ )?"
            + _THINGS,
            r"\bno (?:new |further |other )?(?:mention|information|relevant)\b",
            r"(?:^|: )no (?:\w+ )?" + _THINGS,
            r"(?:^|: )nothing (?:\w+ ){0,3}(?:about|on|relevant|regarding|new)\b",
            r"\bunanswerable\b",
            r"\bnone of (?:the|these|those) (?:\w+ ){0,2}?(?:evidence|sentences?|passages?|parts?|chunks?|text)\b "
            r"(?:\w+ ){0,3}?(?:mention|say|state|help|answer|contain|provide|discuss|describe|tell|give|relevant)",
            r"\b(?:wird|werden|ist|sind) (?:\w+ ){0,6}nicht (?:erwähnt|genannt|angegeben|beantwortet)",
            r"\bkeine (?:information|angabe|erwähnung|antwort|hinweis)",
            r"\bn[’'](?:est|apparaît|y a|indique|mentionne)\b.*\b(?:pas|aucune?|rien)\b",
            r"\bno (?:se )?(?:menciona|indica|dice|especifica|responde|contiene|hay)",
            r"没有(?:提到|提及|说明|信息|相关)|未(?:提及|提到|说明)|无法(?:回答|确定)",
        )
    ),
    re.IGNORECASE,
)
_WIDE_CLAUSE = 5
_CLAUSE = 20


def is_refusal(reply: str) -> bool:
    """True when `reply` says only that there is nothing to say.

    One informative sentence makes it a note: "The will is not mentioned here, but Ada leaves for Rome." is one.
    """
    bare = without_references(reply).strip()
    if not bare:
        return True
    if _MARK.search(bare) and len(_MARK.sub("", bare).strip(" .:!-\n")) < len(NO_INFORMATION):
        return True
    sentences = [s.strip() for s in _SENTENCE.findall(bare) if s.strip(" .!?。！？\n")]
    return all(_only_refuses(s) for s in sentences)


def _only_refuses(sentence: str) -> bool:
    if _MARK.search(sentence):
        return True
    if not _REFUSALS.search(sentence):
        return False
    # "…, but Ada leaves for Rome" says something in its second half.
    clauses = re.split(r",? \b(?:but|however|although|though|aber|mais|pero)\b,? |；|，但|;", sentence)
    return all(_REFUSALS.search(c) for c in clauses if _says_something(c))


def _says_something(clause: str) -> bool:
    """False for what is too short to be news: "however", "in this part"."""
    least = _CLAUSE if clause.isascii() or not _WIDE.search(clause) else _WIDE_CLAUSE
    return len(clause.split()) > 3 or len(clause) > least
