"""What a question is after: one fact, several facts, or the whole book."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["QuestionKind", "question_kind"]

QuestionKind = Literal["single", "several", "whole"]

_WHOLE = re.compile(
    r"\b(?:summar(?:y|i[sz]e)|overall|overview|in general|main (?:idea|point|theme|argument|conflict)s?|"
    r"themes?|morals?|gist|what (?:is|was) (?:the (?:book|story|novel|text|report|document|paper)|this) about|"
    r"how (?:do|does|did) .{3,60} (?:change|develop|evolve)|throughout|plot|"
    r"zusammenfass\w*|insgesamt|überblick|worum geht|hauptthem\w*|handlung|"
    r"résum\w+|de quoi (?:parle|s'agit)|thèmes?|intrigue|"
    r"resum\w+|de qué trata|temas? principal\w*|trama)\b"
    r"|总结|概括|概述|主题|大意|主旨|要約|あらすじ|主題",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"\b(?:list|all (?:the|of)|each|every|both|compare|differen(?:ce|t)s?|in common|how many (?:times|different)|"
    r"which (?:two|three|four|of)|what (?:are|were) the|who (?:are|were) the|between .{2,60} and|before or after|"
    r"nenne|alle|jede[rsnm]?|beide[ns]?|vergleich\w*|unterschied\w*|"
    r"tous|toutes|chaque|les deux|compar\w+|différences?|"
    r"tod[oa]s|cada|amb[oa]s|diferencias?)\b"
    r"|列出|所有|每个|比较|區別|区别|哪些|すべて|それぞれ|比較",
    re.IGNORECASE,
)
_QUESTION_WORD = re.compile(
    r"\b(?:who|whom|whose|what|when|where|which|why|how|wer|wen|wem|was|wann|wo|warum|wie|qui|que|quand|où|pourquoi|"
    r"comment|quién|qué|cuándo|dónde|cómo)\b",
    re.IGNORECASE,
)


def question_kind(question: str) -> QuestionKind:
    """By its wording, in English, German, French, Spanish, Chinese and Japanese; "single" where nothing shows."""
    if _WHOLE.search(question):
        return "whole"
    if _SEVERAL.search(question) or len(_QUESTION_WORD.findall(question)) > 1:
        return "several"
    return "single"
