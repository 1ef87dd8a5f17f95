"""Exact token counts from a server's own tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx

from coa.errors import AuthenticationFailed, ModelError, ModelUnavailable
from coa.llm.litellm_clients import on_loopback

__all__ = ["PROBE", "EngineTokens", "Tokenizing", "tokenize_body"]

Tokenizing = Literal["llama_server", "vllm", "sglang"]
"""Kinds of engines that have a `/tokenize`."""

_MAX_REQUEST_CHARS = 200_000
_PARALLEL_REQUESTS = 8
PROBE = ("word one.\n", "\n\n  indented ", " 你好 don't\t", "12345 tail")
"""Texts that tokenizers tell apart: what stands at their ends merges with neighbours where it can."""
# Control tokens of the usual families, for servers that do not tell theirs.
_CONTROL_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
)
_ERROR_WORD = re.compile(r"[A-Za-z_]{1,48}\Z")


def tokenize_body(kind: Tokenizing, text: str, *, model: str, add_special: bool = False) -> dict[str, object]:
    """The JSON that `/tokenize` takes (llama.cpp, tools/server; vLLM and SGLang, `TokenizeRequest`)."""
    if kind == "llama_server":
        return {"content": text, "add_special": add_special, "parse_special": True}
    return {"model": model, "prompt": text, "add_special_tokens": add_special}


class EngineTokens:
    """A `coa.tokens.TokenCounter` over `/tokenize`; its counts are those of the served model.

    Control tokens such as "<|im_end|>" inside a text count as the one token that the server makes of them,
    since it parses them in message contents too.

    Many texts travel as one, with a control token of the model's between them: nothing merges across it,
    so each text is counted as if it stood alone. Where a model's tokenizer does not keep to that (a probe
    at the first call finds out), each text travels by itself, several at a time.
    """

    exact = True

    def __init__(
        self,
        root_url: str,
        api_key: str = "",
        name: str = "llama.cpp",
        *,
        kind: Tokenizing = "llama_server",
        model: str = "",
        timeout_s: float = 60.0,
        verify: bool | str = True,
    ):
        """`model` is what the server calls it; `verify` False or a path to certificates, as httpx takes it."""
        self.name = name
        self._kind: Tokenizing = kind
        self._model = model
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        if root_url.startswith("http:"):
            verify = False  # loading certificates takes a tenth of a second
        self._client = httpx.Client(
            base_url=root_url, headers=headers, timeout=timeout_s, verify=verify, trust_env=not on_loopback(root_url)
        )
        self._shown = self._client.base_url.host
        self._separator: tuple[str, int] | None = None
        self._probed = False

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, in order; 0 for an empty one."""
        if not self._probed:
            self._separator = self._find_separator()
            self._probed = True
        counts = [0] * len(texts)
        batches = list(self._batches(texts))
        with ThreadPoolExecutor(_PARALLEL_REQUESTS if self._separator is None else 1) as pool:
            found = pool.map(lambda batch: self._count_batch([texts[i] for i in batch]), batches)
            for batch, n_tokens_of in zip(batches, found, strict=True):
                for index, n_tokens in zip(batch, n_tokens_of, strict=True):
                    counts[index] = n_tokens
        return counts

    def count_chat(self, messages: Sequence[dict[str, str]]) -> int:
        """Tokens of the whole prompt that the server makes of `messages`, chat template included."""
        if self._kind == "llama_server":
            prompt: Any = self._post("/apply-template", {"messages": list(messages)})
            return len(self._tokenize(str(prompt["prompt"]), add_special=True))
        body = {"model": self._model, "messages": list(messages), "add_generation_prompt": True}
        return len(_tokens(self._post("/tokenize", body)))

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
        counts = self._joined_counts(texts) if len(texts) > 1 else None
        return counts if counts is not None else [len(self._tokenize(text)) for text in texts]

    def _joined_counts(self, texts: Sequence[str]) -> list[int] | None:
        """Tokens of each, counted in one request; None where a separator was lost among them."""
        if self._separator is None:
            return None
        mark, token = self._separator
        counts = [0]
        for piece in self._tokenize(mark.join(texts)):
            if piece == token:
                counts.append(0)
            else:
                counts[-1] += 1
        # Another control token may have swallowed one.
        return counts if len(counts) == len(texts) else None

    def _find_separator(self) -> tuple[str, int] | None:
        marks: Sequence[str] = _CONTROL_TOKENS
        if self._kind == "llama_server":
            props: Any = self._checked("GET", "/props", None)
            marks = [str(props.get(key) or "") for key in ("eos_token", "bos_token")]
        alone = [len(self._tokenize(text)) for text in PROBE]
        for mark in marks:
            tokens = self._tokenize(mark) if mark else []
            if len(tokens) != 1:
                continue
            self._separator = (mark, tokens[0])
            if self._joined_counts(PROBE) == alone:
                return self._separator
        return None

    def _tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        body = tokenize_body(self._kind, text, model=self._model, add_special=add_special)
        return _tokens(self._post("/tokenize", body))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._checked("POST", path, body)

    def _checked(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """The reply's JSON. Errors name the kind of failure alone: a server may repeat the text that it was sent."""
        try:
            reply = self._client.request(method, path, json=body)
        except httpx.HTTPError as exc:
            raise ModelUnavailable(
                f"the engine at {self._shown} does not answer: {exc or type(exc).__name__}."
            ) from exc
        if reply.status_code in (401, 403):
            raise AuthenticationFailed(f"the engine at {self._shown} refuses the key.")
        if reply.status_code >= 500:
            raise ModelUnavailable(f"{path} of the engine failed with status {reply.status_code}.")
        if reply.is_error:
            raise ModelError(f"{path} of the engine answered {reply.status_code}{_kind_of_error(reply)}.")
        try:
            return reply.json()
        except ValueError:
            raise ModelError(f"{path} of the engine answered something that is not JSON.") from None


def _tokens(reply: Any) -> list[int]:
    tokens = reply.get("tokens") if isinstance(reply, dict) else None
    if not isinstance(tokens, list):
        raise ModelError("/tokenize of the engine answered without a list of tokens.")
    return tokens


def _kind_of_error(reply: httpx.Response) -> str:
    """The error's `type` where it is a single word, with a space in front."""
    try:
        body = reply.json()
    except ValueError:
        return ""
    error = body.get("error", body) if isinstance(body, dict) else None
    kind = error.get("type") if isinstance(error, dict) else None
    return f" ({kind})" if isinstance(kind, str) and _ERROR_WORD.match(kind) else ""
