"""Languages as prompts name them."""

from __future__ import annotations

__all__ = ["LANGUAGES", "is_wide", "write_in"]

LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""ISO 639-1 codes and English names."""


def write_in(language: str | None) -> str:
    """ "Write in German." for "de"; empty for None. A code without a name here is used as it is."""
    return "" if language is None else f"Write in {LANGUAGES.get(language, language)}."


def is_wide(language: str | None) -> bool:
    """True for languages written without spaces, whose characters cost more tokens each."""
    return language in {"zh", "ja"}
