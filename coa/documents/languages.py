"""The language of a text, by its script and its commonest words."""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["guess_language", "language_code"]

_CODES = {
    "english": "en", "german": "de", "deutsch": "de", "french": "fr", "français": "fr", "francais": "fr",
    "spanish": "es", "español": "es", "castellano": "es", "italian": "it", "portuguese": "pt", "dutch": "nl",
    "chinese": "zh", "japanese": "ja", "korean": "ko", "russian": "ru", "arabic": "ar", "latin": "la",
    "greek": "el", "finnish": "fi", "swedish": "sv", "danish": "da", "norwegian": "no", "polish": "pl",
    "czech": "cs", "hungarian": "hu", "esperanto": "eo", "catalan": "ca", "turkish": "tr", "hebrew": "he",
    "icelandic": "is", "romanian": "ro", "tagalog": "tl", "welsh": "cy", "ukrainian": "uk", "bulgarian": "bg",
    "serbian": "sr", "hindi": "hi", "persian": "fa", "farsi": "fa", "vietnamese": "vi",
}  # fmt: skip

# The commonest function words of each language that are not among the commonest of its neighbours here.
_STOP_WORDS = {
    "en": "the and of to that was he his with for had as not at by but you she this her which from they have is it be",
    "de": "und der die das nicht ich er sie sich mit dem auf ein den von ist zu es war wie auch daß dass aber",
    "fr": "le les et des que il dans une est qui ne pas pour ce sur au se du vous je plus était avec mais",
    "es": "que el y los se las un por una con su del lo al como más pero sus era muy yo había también",
    "it": "che il di non per un del si della con lo gli dei era sono come più ma una anche suo nel alla",
    "pt": "que não uma com os um para do da se mais por dos ao na no como mas era ele ela seu sua muito",
    "nl": "de het een van en dat niet is ik hij zijn te met op aan voor was maar ze er als ook naar",
}
_WORDS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")
# How much of a text is looked at, in code points: from its middle, where no foreign licence or title is.
_SAMPLE = 40_000

_SCRIPTS = {
    "ja": re.compile("[\u3040-\u30ff]"),
    "ko": re.compile("[\uac00-\ud7af]"),
    "zh": re.compile("[\u3400-\u9fff]"),
    "ru": re.compile("[\u0400-\u04ff]"),
    "ar": re.compile("[\u0600-\u06ff]"),
}
_NOT_RUSSIAN = re.compile("[іїєґўђјљњћџІЇЄҐЎЂЈЉЊЋЏ]")
_NOT_ARABIC = re.compile("[پچژگکی]")


def language_code(name: str) -> str | None:
    """ISO 639-1 for an English language name or a code, as headers of e-books have them; None if unknown."""
    first = re.split(r"[,;/(]", name.strip().lower())[0].strip()
    if first in _CODES:
        return _CODES[first]
    code = first.split("-")[0].split("_")[0]
    return code if code in _CODES.values() else None


def guess_language(text: str) -> str | None:
    """ISO 639-1 of `text` where its script or its function words leave no doubt; else None.

    Tells en, de, fr, es, it, pt, nl, zh, ja, ko, ru and ar; other languages of these scripts are None.
    """
    middle = max(0, (len(text) - _SAMPLE) // 2)
    sample = text[middle : middle + _SAMPLE]
    n_letters = sum(map(str.isalpha, sample))
    if n_letters < 20:
        return None
    if sample.isascii():
        return _by_stop_words(sample)
    counts = {language: len(pattern.findall(sample)) for language, pattern in _SCRIPTS.items()}
    if counts["ja"] > 0.05 * n_letters and counts["ja"] + counts["zh"] > 0.5 * n_letters:
        return "ja"
    for language in ("ko", "zh", "ru", "ar"):
        if counts[language] > 0.6 * n_letters:
            other = {"ru": _NOT_RUSSIAN, "ar": _NOT_ARABIC}.get(language)
            doubtful = other is not None and len(other.findall(sample)) > 0.01 * n_letters
            return None if doubtful else language
    return _by_stop_words(sample)


def _by_stop_words(sample: str) -> str | None:
    words = Counter(_WORD.findall(sample.lower()))
    n_words = words.total()
    if n_words < 10:
        return None
    # A word or two that happen to be a language's own are no evidence of it.
    candidates = {language: known for language, known in _WORDS.items() if len(known & words.keys()) > 2}
    shares = sorted(
        ((sum(words[w] for w in known) / n_words, language) for language, known in candidates.items()), reverse=True
    )
    if not shares:
        return None
    (best, language), (second, _) = [*shares, (0.0, "")][:2]
    return language if best >= 0.12 and best >= 1.3 * second else None
