"""Counters of tokens beside a server's own: a tokenizer.json on this machine, and counters put together."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from coa.errors import ConfigError, ModelUnavailable
from coa.tokens import TokenCounter

__all__ = ["AnyOfTokens", "LargerTokens", "LocalTokens", "close_counter"]

_FILE = "tokenizer.json"


class LocalTokens:
    """Counts by a `tokenizer.json`, as model repositories hold it; exact when it is the served model's own.

    Control tokens inside a text count as one, as they do on servers. Raises: ConfigError for a file that is
    missing or no tokenizer.
    """

    exact = True

    def __init__(self, path: Path | str) -> None:
        """`path` may be the folder that holds the file."""
        from tokenizers import Tokenizer

        file = Path(path).expanduser()
        file = file / _FILE if file.is_dir() else file
        if not file.is_file():
            raise ConfigError(f"there is no tokenizer file {file}.", hint="`tokenizer` in model_info names it.")
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            raise ConfigError(f"{file} is not a tokenizer.json: {error}.") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.name = file.parent.name if file.name == _FILE and file.parent.name else file.stem

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self.tokens(texts)]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        found = self._tokenizer.encode_batch([_encodable(t) for t in texts], add_special_tokens=False)
        return [list(encoding.ids) for encoding in found]


class LargerTokens:
    """The larger count of several tokenizers, text by text: it fits whichever model answers."""

    exact = False

    def __init__(self, counters: Sequence[TokenCounter]) -> None:
        self.counters = tuple(counters)
        self.name = "larger of " + ", ".join(dict.fromkeys(c.name for c in self.counters))

    def count(self, texts: Sequence[str]) -> list[int]:
        """The largest count of each text."""
        return [max(counts) for counts in zip(*(c.count(texts) for c in self.counters), strict=True)]

    def close(self) -> None:
        """Closes all of them."""
        for counter in self.counters:
            close_counter(counter)


class AnyOfTokens:
    """One tokenizer that several servers have: the next one counts where one is gone."""

    exact = True

    def __init__(self, counters: Sequence[TokenCounter]) -> None:
        self.counters = tuple(counters)
        self.name = self.counters[0].name

    def count(self, texts: Sequence[str]) -> list[int]:
        """Counts of the first server that answers. Raises: ModelUnavailable when none does."""
        for counter in self.counters[:-1]:
            with contextlib.suppress(ModelUnavailable):
                return counter.count(texts)
        return self.counters[-1].count(texts)

    def close(self) -> None:
        """Closes all of them."""
        for counter in self.counters:
            close_counter(counter)


def close_counter(counter: TokenCounter) -> None:
    """Lets go of the connections that a counter may hold."""
    close = getattr(counter, "close", None)
    if close is not None:
        close()


def _encodable(text: str) -> str:
    """`text` with lone surrogates, which have no UTF-8, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
