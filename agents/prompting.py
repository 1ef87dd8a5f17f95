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
        self._text = _read(name)
        found = set(_VARIABLE.findall(self._text))
        if found != set(variables):
            raise ValueError(
                f"prompt {name!r}: the file has the variables {sorted(found)}, the code gives {sorted(variables)}"
            )
        self._template = Template(self._text)

    @property
    def text(self) -> str:
        """The file's text, variables not filled in; for counting what the template takes of a window."""
        return self._text

    @property
    def digest(self) -> str:
        """The first 12 hexadecimal digits of the file's sha256; part of a run's record."""
        return hashlib.sha256(self._text.encode()).hexdigest()[:12]

    def render(self, **values: str) -> str:
        """The prompt with `values` put in; white space at its ends removed."""
        return self._template.substitute(values).strip()


@cache
def _read(name: str) -> str:
    text = (resources.files("coa.agents") / "prompts" / f"{name}.md").read_text(encoding="utf-8")
    return text.strip() + "\n"
