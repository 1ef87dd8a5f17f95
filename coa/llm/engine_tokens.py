"""Exact token counts from a llama.cpp server's own tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from coa.errors import AuthenticationFailed, ModelError, ModelUnavailable

__all__ = ["EngineTokens"]

_MAX_REQUEST_CHARS = 200_000
_PROBE = ("word one.\n", "\n\n  indented ", " 你好 don't\t", "12345 tail")


class EngineTokens:
    """A `coa.tokens.TokenCounter` over `/tokenize`; its counts are those of the served model.

    Control tokens such as "<|im_end|>" inside a text count as the one token that the server makes of them,
    since it parses them in message contents too.

    Many texts travel as one, with a control token of the model's between them: nothing merges across it,
    so each text is counted as if it stood alone. Where a model's tokenizer does not keep to that (a probe
    at the first call finds out), each text travels by itself.
    """

    exact = True

    def __init__(self, root_url: str, api_key: str = "", name: str = "llama.cpp", *, timeout_s: float = 60.0):
        self.name = name
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(base_url=root_url, headers=headers, timeout=timeout_s, trust_env=False)
        self._separator: tuple[str, int] | None = None
        self._probed = False

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, in order; 0 for an empty one."""
        if not self._probed:
            self._separator = self._find_separator()
            self._probed = True
        counts = [0] * len(texts)
        for batch in self._batches(texts):
            for index, n_tokens in zip(batch, self._count_batch([texts[i] for i in batch]), strict=True):
                counts[index] = n_tokens
        return counts

    def count_chat(self, messages: Sequence[dict[str, str]]) -> int:
        """Tokens of the whole prompt that the server makes of `messages`, chat template included."""
        prompt: Any = self._post("/apply-template", {"messages": list(messages)})
        return len(self._tokenize(str(prompt["prompt"]), add_special=True))

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Indexes of non-empty texts that go into one request, in order."""
        batch: list[int] = []
        n_chars = 0
        for index, text in enumerate(texts):
            if not text:
                continue
            alone = self._separator is None or self._separator[0] in text
            if batch and (alone or n_chars + len(text) > _MAX_REQUEST_CHARS):
                yield batch
                batch, n_chars = [], 0
            if alone:
                yield [index]
                continue
            batch.append(index)
            n_chars += len(text)
        if batch:
            yield batch

    def _count_batch(self, texts: Sequence[str]) -> list[int]:
        if len(texts) == 1 or self._separator is None:
            return [len(self._tokenize(text)) for text in texts]
        mark, token = self._separator
        counts = [0]
        for piece in self._tokenize(mark.join(texts)):
            if piece == token:
                counts.append(0)
            else:
                counts[-1] += 1
        if len(counts) != len(texts):  # another control token swallowed a separator
            return [len(self._tokenize(text)) for text in texts]
        return counts

    def _find_separator(self) -> tuple[str, int] | None:
        props: Any = self._get("/props")
        alone = [len(self._tokenize(text)) for text in _PROBE]
        for key in ("eos_token", "bos_token"):
            mark = str(props.get(key) or "")
            tokens = self._tokenize(mark) if mark else []
            if len(tokens) != 1:
                continue
            self._separator = (mark, tokens[0])
            if self._count_batch(_PROBE) == alone:
                return self._separator
        return None

    def _tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": True}
        reply: Any = self._post("/tokenize", body)
        return list(reply["tokens"])

    def _get(self, path: str) -> Any:
        return self._checked("GET", path, None)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._checked("POST", path, body)

    def _checked(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            reply = self._client.request(method, path, json=body)
        except httpx.HTTPError as exc:
            raise ModelUnavailable(f"The engine at {self._client.base_url} does not answer: {exc}.") from exc
        if reply.status_code in (401, 403):
            raise AuthenticationFailed(f"The engine at {self._client.base_url} refuses the key.")
        if reply.status_code >= 500:
            raise ModelUnavailable(f"{path} of the engine failed with status {reply.status_code}.")
        if reply.is_error:
            raise ModelError(f"{path} of the engine answered {reply.status_code}: {reply.text[:200]}")
        return reply.json()
