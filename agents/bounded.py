"""A grammar that makes a weak model come to an end.

Small models fall into loops ("[1] [2] [3] …", the same sentence again) and then reach the token cap, and a
cut-off note is not a note. llama.cpp engines obey GBNF grammars: at most n sentences of at most m characters
of running text, no brackets, no lists, so the reply ends by itself below the cap.
"""

from __future__ import annotations

__all__ = ["bounded_prose"]

_SENTENCE_CHARS = 180
# A sentence of CJK text has 20 to 60 characters, each up to 3 tokens in an English-centred vocabulary.
_WIDE_SENTENCE_CHARS = 60
_TOKENS_PER_CHAR = 0.5
_WIDE_TOKENS_PER_CHAR = 3.0


def bounded_prose(max_tokens: int, *, wide: bool = False) -> str:
    """GBNF for running text that stays below `max_tokens` in all but absurd tokenisations.

    `wide` is for scripts without spaces (Chinese, Japanese), where a character costs more tokens.
    """
    chars = _WIDE_SENTENCE_CHARS if wide else _SENTENCE_CHARS
    per_sentence = chars * (_WIDE_TOKENS_PER_CHAR if wide else _TOKENS_PER_CHAR)
    n_sentences = max(1, int(max_tokens / per_sentence))
    chars = min(chars, max(20, int(max_tokens / (_WIDE_TOKENS_PER_CHAR if wide else _TOKENS_PER_CHAR))))
    stop = "[.!?。！？]"
    return (
        f'root ::= sentence (" " sentence){{0,{n_sentences - 1}}}\n'
        f"sentence ::= [^ \\n\\r\\t.!?。！？\\[\\]0-9*#-] [^\\n\\r\\t.!?。！？\\[\\]]{{8,{chars}}} {stop}\n"
    )
