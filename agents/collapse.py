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
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？\n]*")

_REFUSALS = re.compile(
    r"|".join(
        (
            r"\bnot (?:explicitly |directly )?(?:mention|stat|discuss|address|provid|specif|contain|answer)",
            r"\b(?:no|any) (?:mention|information|details?|evidence|answer|reference|relevant)\b",
            r"\b(?:does|do|did|is|are|was|were|can|could)(?: not|n't) (?:\w+ ){0,2}"
            r"(?:mention|state|say|contain|provide|discuss|answer|address|specify|clear|known|determine|find|give)",
            r"\bcannot (?:\w+ ){0,2}(?:answer|determine|find|help|say|tell)",
            r"\bi (?:do not|don't|can't|cannot) (?:know|have|find|see|answer)",
            r"\b(?:unable|impossible) to (?:answer|determine|find|say)",
            r"\bnothing (?:\w+ ){0,3}(?:about|on|relevant|regarding|new)\b",
            r"\bunanswerable\b",
            r"\b(?:wird|werden|ist|sind) (?:\w+ ){0,6}nicht (?:erwähnt|genannt|angegeben|beantwortet)",
            r"\bkeine (?:information|angabe|erwähnung|antwort|hinweis)",
            r"\bn[’'](?:est|apparaît|y a|indique|mentionne)\b.*\b(?:pas|aucune?|rien)\b",
            r"\bno (?:se )?(?:menciona|indica|dice|especifica|responde|contiene|hay)",
            r"没有(?:提到|提及|说明|信息|相关)|未(?:提及|提到|说明)|无法(?:回答|确定)",
        )
    ),
    re.IGNORECASE,
)


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
    return all(_REFUSALS.search(c) for c in clauses if len(c.split()) > 3 or len(c) > 20)
