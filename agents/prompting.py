"""Prompts are files: `agents/prompts/<name>.md`, with `$name` for what is put in."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources
from string import Template

__all__ = ["PromptTemplate"]

_VARIABLE = re.compile(r"\$\{?([a-z_]+)\}?")


class PromptTemplate:
    """A prompt file and its variables.

    Raises: ValueError at construction when the file's variables are not exactly those that are named; a
    misspelt one would otherwise reach a model.
    """

    def __init__(self, name: str, *variables: str) -> None:
        self.name = name
        self._text, found = _read(name)
        if found != frozenset(variables):
            raise ValueError(
                f"prompt {name!r}: the file has the variables {sorted(found)}, the code gives {sorted(variables)}"
            )

    @property
    def text(self) -> str:
        """The file's text, variables not filled in; for counting what the template takes of a window."""
        return self._text

    @property
    def digest(self) -> str:
        """The first 12 hexadecimal digits of the file's sha256; part of a run's record."""
        return _digest(self._text)

    def render(self, **values: str) -> str:
        """The prompt with `values` put in; white space at its ends removed."""
        return Template(self._text).substitute(values).strip()


@cache
def _read(name: str) -> tuple[str, frozenset[str]]:
    """The file's text and its variables."""
    text = (resources.files("coa.agents") / "prompts" / f"{name}.md").read_text(encoding="utf-8").strip() + "\n"
    return text, frozenset(_VARIABLE.findall(text))


@cache
def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
