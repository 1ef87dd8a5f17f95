"""Counts of servers' own tokenizers, of tokenizer files, and of groups that have several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coa.errors import AuthenticationFailed, ConfigError, ModelError, ModelUnavailable
from coa.llm.counting import counter_for
from coa.llm.deployments import Deployment
from coa.llm.engine_tokens import PROBE, EngineTokens
from coa.llm.served import Served
from coa.llm.token_counters import AnyOfTokens, LargerTokens, LocalTokens
from coa.tokens import EstimatedTokens

if TYPE_CHECKING:
    from tests.llm.conftest import Engine

Serve = Callable[[Mapping[str, Any]], "Engine"]
SECRET = "The will was hidden behind the stove."


def _words(text: str, controls: tuple[str, ...]) -> list[int]:
    ids: list[int] = []
    for word in text.split():
        rest = word
        for control in controls:
            while control in rest:
                before, _, rest = rest.partition(control)
                ids += [len(before)] * bool(before) + [9000]
        ids += [len(rest)] * bool(rest)
    return ids


def _tokenizing(*controls: str) -> dict[str, Any]:
    return {"POST /tokenize": lambda body: {"tokens": _words(body["prompt"], controls)}}


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """A real tokenizer.json: words and marks, with a control token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {word: n for n, word in enumerate(["[UNK]", "word", "one", ".", "tail"])}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<|im_end|>"])
    made.enable_truncation(3)
    path = tmp_path / "reader" / "tokenizer.json"
    path.parent.mkdir()
    made.save(str(path))
    return path


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_many_texts_travel_as_one_where_a_control_token_parts_them(serve: Serve, kind: Any) -> None:
    engine = serve(_tokenizing("<|eot_id|>"))
    counter = EngineTokens(engine.root_url, "k", kind=kind, model="reader")
    texts = ["one two", "", "three", "a <|eot_id|> b", *["four five six"] * 50]
    counts = counter.count(texts)
    counter.close()
    assert counts == [2, 0, 1, 3, *[3] * 50]
    bodies = engine.asked("POST /tokenize")
    assert {body["model"] for body in bodies} == {"reader"}
    assert {body["add_special_tokens"] for body in bodies} == {False}
    assert len(bodies) < 30, "not one request for each text"


def test_where_nothing_parts_them_each_text_travels_alone(serve: Serve) -> None:
    engine = serve(_tokenizing())
    counter = EngineTokens(engine.root_url, kind="vllm", model="reader")
    assert counter.count(["one two", "three"] * 20) == [2, 1] * 20
    counter.close()


def test_a_chat_is_counted_by_the_servers_own_template(serve: Serve) -> None:
    engine = serve({"POST /tokenize": {"count": 4, "max_model_len": 10, "tokens": [1, 2, 3, 4]}})
    counter = EngineTokens(engine.root_url, kind="vllm", model="reader")
    assert counter.count_chat([{"role": "user", "content": "hi"}]) == 4
    assert engine.asked("POST /tokenize")[0]["add_generation_prompt"] is True
    counter.close()


@pytest.mark.parametrize(
    ("answer", "error", "part"),
    [
        (lambda body: 400, ModelError, "answered 400"),
        (lambda body: 500, ModelUnavailable, "status 500"),
        (lambda body: 401, AuthenticationFailed, "refuses the key"),
        (lambda body: f"I cannot read {body['prompt']}", ModelError, "not JSON"),
        (lambda body: {"error": f"cannot read {body['prompt']}"}, ModelError, "without a list of tokens"),
    ],
)
def test_errors_of_a_tokenizer_never_repeat_the_text(
    serve: Serve, answer: Callable[..., Any], error: type[ModelError], part: str
) -> None:
    engine = serve({"POST /tokenize": lambda body: [1] if body["prompt"] in PROBE else answer(body)})
    engine.answers["POST /tokenize"] = lambda body: (
        answer(body) if SECRET in body["prompt"] else {"tokens": _words(body["prompt"], ())}
    )
    counter = EngineTokens(engine.root_url, kind="vllm", model="reader")
    with pytest.raises(error, match=part) as caught:
        counter.count([SECRET])
    counter.close()
    told: BaseException | None = caught.value
    while told is not None:
        assert "stove" not in f"{told} {told!r}"
        told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)


def test_a_refusal_that_repeats_the_text_names_only_its_kind(serve: Serve) -> None:
    from coa.testing.fault_server import FaultServer

    with FaultServer() as server:
        counter = EngineTokens(server.root_url, kind="vllm", model="m")
        with pytest.raises(ModelError) as caught:
            counter._post("/no-such-path", {"prompt": SECRET})
        counter.close()
    assert str(caught.value) == "/no-such-path of the engine answered 404 (not_found_error)."


def test_a_tokenizer_file_counts_all_of_a_text(tokenizer_file: Path) -> None:
    for path in (tokenizer_file, str(tokenizer_file.parent)):
        counter = LocalTokens(path)
        assert counter.count(["word one. tail", "", "one<|im_end|>tail tail tail", "\ud800"]) == [4, 0, 5, 1]
        assert (counter.name, counter.exact) == ("reader", True)


def test_what_is_no_tokenizer_file_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tokenizer file"):
        LocalTokens(tmp_path / "none.json")
    wrong = tmp_path / "tokenizer.json"
    wrong.write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(ConfigError, match=r"is not a tokenizer\.json"):
        LocalTokens(tmp_path)


class Counter:
    def __init__(self, per_char: float, name: str, *, gone: bool = False) -> None:
        self.exact, self.name, self._per_char, self.gone, self.closed = True, name, per_char, gone, False

    def count(self, texts: Any) -> list[int]:
        if self.gone:
            raise ModelUnavailable("gone")
        return [int(len(t) * self._per_char) for t in texts]

    def close(self) -> None:
        self.closed = True


def test_the_larger_count_holds_text_by_text_and_is_no_exact_one() -> None:
    both = LargerTokens([Counter(1, "a"), EstimatedTokens(), Counter(0.1, "a")])
    counts = both.count(["x" * 100, "你好" * 30, ""])
    assert counts[0] == 100
    assert counts[1] == EstimatedTokens().count(["你好" * 30])[0] > 60
    assert counts[2] == 0
    assert (both.name, both.exact) == ("larger of a, estimate+15%", False)


def test_the_next_server_counts_where_one_is_gone() -> None:
    first, second = Counter(1, "a"), Counter(1, "a")
    any_of = AnyOfTokens([first, second])
    first.gone = True
    assert (any_of.count(["xx"]), any_of.name, any_of.exact) == ([2], "a", True)
    second.gone = True
    with pytest.raises(ModelUnavailable):
        any_of.count(["xx"])
    any_of.close()
    assert first.closed
    assert second.closed


def _deployment(name: str, tokenizer: str | None = None, kind: Any = "vllm") -> Deployment:
    return Deployment(name, "hosted_vllm/reader", kind, "http://127.0.0.1:1/v1", tokenizer=tokenizer)


def test_a_groups_counter_holds_for_each_of_its_deployments(tokenizer_file: Path) -> None:
    alike, other = Served("vllm", True, fingerprint=(1, 2)), Served("vllm", True, fingerprint=(3,))
    dead, mute = Served("vllm", False), Served("vllm", True)
    hosted = Served("hosted", True)

    def chosen(*pairs: tuple[Deployment, Served]) -> Any:
        return counter_for([d for d, _ in pairs], {d.id: s for d, s in pairs})

    a, b = _deployment("a"), _deployment("b")
    assert isinstance(chosen((a, alike)), EngineTokens)
    assert isinstance(chosen((a, alike), (b, alike)), AnyOfTokens)
    assert isinstance(chosen((a, alike), (b, other)), LargerTokens)
    assert isinstance(chosen((a, alike), (b, dead)), EngineTokens), "its neighbour's tokenizer is its own"
    assert isinstance(chosen((a, alike), (_deployment("h", kind="hosted"), hosted)), LargerTokens)
    for only in (dead, mute):
        assert isinstance(chosen((a, only)), EstimatedTokens)
    local = _deployment("c", str(tokenizer_file))
    assert isinstance(chosen((local, dead)), LocalTokens)
    assert isinstance(chosen((_deployment("e", "estimate"), alike)), EstimatedTokens)
    with pytest.raises(ConfigError, match="a has no /tokenize"):
        chosen((_deployment("a", "server"), mute))
