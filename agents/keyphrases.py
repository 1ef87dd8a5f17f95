"""Titles made of phrases that stand in the text, for models too small to write one.

Asked for a title of one sentence or of ten, a 135M model names things that are not there ("A Tale of Two Cities",
"a historical event") 42 times out of 52. Phrases of the text cannot be invented: names, and what follows a
determiner, weighed by how much more often their words stand in this part than in the text around it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from coa.agents.lexical import content_words, stem
from coa.agents.segmentation import is_heading

__all__ = ["key_phrases", "phrase_title"]

_TOKEN = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*|\d+|[^\w\s]")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_DETERMINER_WORDS = """
a an the this that these those his her hers its my your our their no some any each every another both
one two three four five six seven eight nine ten
der die das den dem des ein eine einen einem einer eines kein keine mein meine sein seine ihr ihre ihren ihrem
dieser diese dieses jeder jede jedes
le la les l' un une des du au aux ce cet cette ces mon ma mes ton ta tes son sa ses leur leurs notre nos
el los las unos unas al del este esta estos estas ese esa su sus mi mis tu tus
il lo gli i uno o os as um uma
"""
_CONTRACTED = re.compile(r"['’](?:d|ll|ve|re|m|t)$", re.IGNORECASE)
# Words that a noun phrase ends before: most verbs of telling and the commonest adverbs; nouns are left over.
_OTHER_WORDS = """
said says say saying asked answered replied cried told went gone go going came come coming lay lain stood stand sat
looked look looking took taken take made make making got get getting gave given give saw seen see knew known know
thought think felt feel put began begun begin seemed seem turned turn kept keep held hold found find left let called
call tried try used use wanted want needed need heard hear ran run brought bring became become meant mean must shall
should would could can may might will had has have having was were been being be am is are did do does done not
never ever always often only just even still yet too very much more most less least quite rather almost again once
twice now then here there where when while before after since until because although though if unless whether than
as like such same other own first last next few many several all both nothing something anything everything nobody
somebody anybody everybody none who whom whose which what how why that this these those away back down up out off
over under into onto upon about above below between through across along around against toward towards without
within behind beside besides beneath beyond near inside outside during despite with from for and but or nor so at by
in of on to it he she they we you him them me us himself herself itself themselves myself yourself well perhaps
indeed however therefore thus also mr mrs ms miss dr sir lady lord shut old little great good big young chapter part
book section oh ah yes und oder aber nicht auch noch schon sehr sich war waren hatte hatten wurde wurden ist sind
hat haben werden ich du wir sollte wollte konnte musste sagte ging kam stand machte wie wenn als dann doch nur mehr
man zu mit von bei nach aus auf für um über et ou mais pas plus que qui dont dit était étaient avait avaient fut est
sont a ont il elle ils elles dans pour par sur avec sans comme si tout tous toute toutes bien fait faire y pero más
que dijo era eran había fue es son ha han en con por para sin como si todo todos muy
"""
_DETERMINERS = frozenset(_DETERMINER_WORDS.split())
_NO_NOUNS = frozenset(_OTHER_WORDS.split())
_SAYS_NOTHING = _NO_NOUNS | _DETERMINERS
_LONGEST = 3
_PHRASES = 3
_NAME_WORTH = 1.25
_LONGER_WORTH = 0.35
_MOST_CHARS = 40
_OPENING_CHARS = 90
_SEPARATOR = ", "
_WIDE_FUNCTION = frozenset("的了是在和与及也就都而不我你他她它们这那一有人上下来去说着道又之其为以于")


class _Phrase(NamedTuple):
    text: str
    stems: frozenset[str]
    first: int
    """Where it stands first, for the order in a title."""
    is_name: bool


def key_phrases(sentences: Sequence[str], around: Sequence[str], *, most: int = _PHRASES) -> list[str]:
    """Up to `most` phrases of `sentences`, copied from them, in their order; empty where no word carries meaning.

    `around` is the whole text that `sentences` are a part of: what is in all of it says little of this part.
    """
    joined = " ".join(sentences)
    if len("".join(_WIDE.findall(joined))) * 3 > len(joined):
        return _wide_phrases(joined, " ".join(around), most)
    weights = _weights(sentences, around)
    found: dict[str, list[_Phrase]] = {}
    for phrase in _candidates(sentences):
        found.setdefault(" ".join(sorted(phrase.stems)), []).append(phrase)
    scored = []
    for same in found.values():
        phrase = same[0]
        mean = math.fsum(weights.get(w, 0.0) for w in phrase.stems) / len(phrase.stems)
        worth = mean * (1 + _LONGER_WORTH * (len(phrase.stems) - 1)) * math.sqrt(len(same))
        scored.append((worth * (_NAME_WORTH if phrase.is_name else 1.0), phrase))
    scored.sort(key=lambda pair: (-pair[0], pair[1].first))
    chosen: list[_Phrase] = []
    for worth, phrase in scored:
        if len(chosen) < most and worth > 0 and not any(phrase.stems & c.stems for c in chosen):
            chosen.append(phrase)
    return [p.text for p in sorted(chosen, key=lambda p: p.first)]


def phrase_title(sentences: Sequence[str], around: Sequence[str]) -> str:
    """A title for `sentences`: their key phrases, or the first words where they have none; "…" for no text.

    Headings count only where there is nothing else: what they say is in the outline already.
    """
    told = [s for s in sentences if not is_heading(s)] or sentences
    phrases = key_phrases(told, around)
    title = _SEPARATOR.join(phrases) if phrases else _opening(" ".join(" ".join(told[:2]).split()))
    return title[:1].upper() + title[1:] or "…"


def _opening(text: str) -> str:
    return text if len(text) <= _OPENING_CHARS else text[: _OPENING_CHARS - 1].rsplit(" ", 1)[0] + "…"


def _weights(sentences: Sequence[str], around: Sequence[str]) -> dict[str, float]:
    """Stems by how often they stand here, more for those that stand here more often than around."""
    here = Counter(stem(w) for s in sentences for w in _words(s))
    everywhere = Counter(stem(w) for s in around for w in _words(s))
    share = len(sentences) / max(1, len(around))
    held = content_words(" ".join(sentences))
    return {
        w: math.sqrt(n) * (1 + math.log(max(1.0, n / (max(n, everywhere[w]) * share))))
        for w, n in here.items()
        if w in held
    }


def _words(sentence: str) -> list[str]:
    return [t for t in _TOKEN.findall(sentence) if t[0].isalpha()]


def _candidates(sentences: Sequence[str]) -> Iterator[_Phrase]:
    """Names, and the nouns behind determiners with what stands between."""
    at = 0
    names = {t for s in sentences for t in _inner_capitals(s)}
    for sentence in sentences:
        tokens = _TOKEN.findall(sentence)
        n = 0
        while n < len(tokens):
            run = _name(tokens, n, names)
            if run:
                yield _phrase(tokens[n : n + run], at + n, is_name=True)
                n += run
                continue
            if n and _opens_a_noun(tokens[n - 1]):
                run = _noun(tokens, n)
                if run:
                    yield _phrase(tokens[n : n + run], at + n, is_name=False)
            n += 1
        at += len(tokens)


def _opens_a_noun(token: str) -> bool:
    """True for determiners and for names in the genitive; "he's" is none."""
    token = token.casefold()
    return token in _DETERMINERS or (token.endswith(("'s", "’s")) and token[:-2] not in _NO_NOUNS)


def _inner_capitals(sentence: str) -> Iterator[str]:
    """Capitalised words that do not begin the sentence, so that they are names (in German: nouns)."""
    tokens = _TOKEN.findall(sentence)
    for before, token in pairwise(tokens):
        if before[0].isalpha() and token[:1].isupper() and not token.isupper() and _says(token):
            yield token


def _name(tokens: Sequence[str], at: int, names: set[str]) -> int:
    """How many tokens from `at` on are a name."""
    run = 0
    while at + run < len(tokens) and run < _LONGEST and tokens[at + run] in names:
        run += 1
        if tokens[at + run - 1].endswith(("'s", "’s")):
            break
    return run


def _noun(tokens: Sequence[str], at: int) -> int:
    """How many tokens behind a determiner are a noun with its adjectives; 0 where they are none."""
    run = 0
    while at + run < len(tokens) and run < _LONGEST + 1 and _says(tokens[at + run]):
        run += 1
    # What runs on is followed by its verb: only its beginning is sure.
    if run > _LONGEST:
        return 0
    while run > 1 and tokens[at + run - 1].endswith(("ed", "ing", "ly")):
        run -= 1
    return run if run and len(tokens[at + run - 1]) > 2 else 0


def _says(token: str) -> bool:
    return (
        token[0].isalpha()
        and len(token) > 2
        and token.casefold() not in _SAYS_NOTHING
        and not _CONTRACTED.search(token)
    )


def _phrase(tokens: Sequence[str], first: int, *, is_name: bool) -> _Phrase:
    text = re.sub(r"['’]s$", "", " ".join(tokens))[:_MOST_CHARS]
    return _Phrase(text, frozenset(stem(w) for w in text.split()), first, is_name)


def _wide_phrases(text: str, around: str, most: int) -> list[str]:
    """The same for scripts without spaces: runs of two to four characters that come again."""
    here: Counter[str] = Counter()
    for run in _WIDE.findall(text):
        for size in (2, 3, 4):
            here.update(run[i : i + size] for i in range(len(run) - size + 1))
    scored = []
    for run, n in here.items():
        if n < 2 or _WIDE_FUNCTION & set(run):
            continue
        contrast = n / max(1, around.count(run))
        scored.append((n * (len(run) - 1) * (0.5 + contrast), run))
    scored.sort(key=lambda pair: (-pair[0], text.index(pair[1])))
    chosen: list[str] = []
    for _, run in scored:
        if len(chosen) < most and not any(set(run) & set(c) for c in chosen):
            chosen.append(run)
    return sorted(chosen, key=text.index)
