"""Downloads against a hub of our own that misbehaves on request."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coa.errors import AuthenticationFailed, ModelError, ModelNotFound, ModelUnavailable, StorageError
from coa.llm.catalogue import HubFile
from coa.llm.hub import fetch_hub_file, hub_address

CONTENT = b"GGUF" + bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = HubFile("org/model-GGUF", "model q8.gguf")


@dataclass
class Hub:
    """What the server does, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    status: int = 200
    redirect_to: str | None = None
    """Host address that file requests are sent on to."""
    drops: int = 0
    """How many of the next downloads end in the middle."""
    failures: int = 0
    """How many of the next requests answer 503."""
    ranges: bool = True
    linked: bool = True
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    def downloads(self) -> list[str | None]:
        """Range headers of the GET requests, in order."""
        return [range_ for method, _, range_ in self.requests if method == "GET"]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            hub.authorizations.append(self.headers.get("Authorization"))
            if hub.failures:
                hub.failures -= 1
                self.send_response(503)
                self.end_headers()
                return
            if hub.status != 200:
                self.send_response(hub.status)
                self.end_headers()
                return
            if hub.redirect_to is not None:
                self.send_response(302)
                self.send_header("Location", hub.redirect_to + "/store/blob?signed=1")
                self._linked()
                self.end_headers()
                return
            self._content()

        def _linked(self) -> None:
            if hub.linked:
                self.send_header("X-Linked-Etag", f'"{SHA256}"')
                self.send_header("X-Linked-Size", str(len(CONTENT)))

        def _content(self) -> None:
            start = 0
            asked = self.headers.get("Range")
            if asked and hub.ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self._linked()
            self.send_header("ETag", '"v1"')
            self.send_header("Content-Length", str(len(hub.content) - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            body = hub.content[start:]
            if hub.drops:
                hub.drops -= 1
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

    return Handler


def _serve() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield from _serve()


@pytest.fixture
def store() -> Iterator[Hub]:
    """A second host, to which the hub redirects."""
    yield from _serve()


def _fetch(hub: Hub, path: Path, sha256: str | None = None) -> str:
    return fetch_hub_file(SOURCE, path, hub_url=hub.url, wait_s=0.001, sha256=sha256)


def test_a_file_is_fetched_under_its_own_name_and_checked(hub: Hub, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = tmp_path / "model.gguf"
    found = fetch_hub_file(SOURCE, path, hub_url=hub.url, progress=lambda *step: seen.append(step))
    assert (found, path.read_bytes()) == (SHA256, CONTENT)
    assert seen[-1] == ("download", len(CONTENT), len(CONTENT))
    assert [each[1] for each in seen] == sorted(each[1] for each in seen)
    assert hub.requests[0][1] == "/org/model-GGUF/resolve/main/model%20q8.gguf"
    assert [each.name for each in tmp_path.iterdir()] == ["model.gguf"]


def test_a_broken_connection_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.drops = 2
    assert _fetch(hub, tmp_path / "m.gguf") == SHA256
    half = len(CONTENT) // 2
    assert hub.downloads() == [None, f"bytes={half}-", f"bytes={half + (len(CONTENT) - half) // 2}-"]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    hub.drops = 100
    with pytest.raises(ModelUnavailable, match=r"ended after|could not be fetched"):
        _fetch(hub, path)
    assert not path.exists()
    kept = (tmp_path / "m.gguf.part").stat().st_size
    hub.drops = 0
    hub.requests.clear()
    assert _fetch(hub, path) == SHA256
    assert hub.downloads() == [f"bytes={kept}-"]
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(hub: Hub, tmp_path: Path) -> None:
    hub.drops, hub.ranges = 1, False
    assert _fetch(hub, tmp_path / "m.gguf") == SHA256
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT


def test_bytes_of_another_version_are_not_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "m.gguf.part").write_bytes(b"old" * 100)
    (tmp_path / "m.gguf.part.etag").write_text("0" * 64)
    assert _fetch(hub, tmp_path / "m.gguf") == SHA256
    assert hub.downloads() == [None]


def test_wrong_bytes_are_thrown_away(hub: Hub, tmp_path: Path) -> None:
    hub.content = CONTENT[:-1] + b"\x00"
    with pytest.raises(ModelError, match="thrown away"):
        _fetch(hub, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
    assert not (tmp_path / "m.gguf.part").exists()


def test_the_catalogue_s_checksum_goes_before_the_hub_s(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="0" * 64):
        _fetch(hub, tmp_path / "m.gguf", sha256="0" * 64)
    assert not (tmp_path / "m.gguf").exists()


def test_the_store_behind_a_redirect_never_sees_the_token(
    hub: Hub, store: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.redirect_to, store.linked = store.url, False
    assert _fetch(hub, tmp_path / "m.gguf") == SHA256
    assert hub.authorizations == ["Bearer secret"]
    assert store.authorizations == [None]
    assert [(method, path) for method, path, _ in store.requests] == [("GET", "/store/blob?signed=1")]


def test_a_store_that_drops_is_asked_for_the_rest(hub: Hub, store: Hub, tmp_path: Path) -> None:
    hub.redirect_to, store.drops = store.url, 1
    assert _fetch(hub, tmp_path / "m.gguf") == SHA256
    assert store.downloads() == [None, f"bytes={len(CONTENT) // 2}-"]
    assert hub.downloads() == []


def test_a_passing_failure_is_tried_again(hub: Hub, tmp_path: Path) -> None:
    hub.failures = 3
    assert _fetch(hub, tmp_path / "m.gguf") == SHA256


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, AuthenticationFailed, "HF_TOKEN"),
        (403, AuthenticationFailed, "Accept its licence"),
        (404, ModelNotFound, "no file 'model q8.gguf'"),
    ],
)
def test_a_refusal_is_explained_and_not_repeated(
    hub: Hub, tmp_path: Path, status: int, error: type[Exception], words: str
) -> None:
    hub.status = status
    with pytest.raises(error, match=words):
        _fetch(hub, tmp_path / "m.gguf")
    assert len(hub.requests) == 1


def test_a_hub_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="run the same command again"):
        fetch_hub_file(SOURCE, tmp_path / "m.gguf", hub_url="http://127.0.0.1:9", wait_s=0.001)


def test_a_full_disk_is_told_before_the_first_byte(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="COA_HOME"):
        _fetch(hub, tmp_path / "m.gguf")
    assert hub.downloads() == []


def test_the_address_comes_from_argument_environment_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert hub_address("http://x/") == "http://x"
    assert hub_address() == "https://mirror.example"
    monkeypatch.delenv("HF_ENDPOINT")
    assert hub_address() == "https://huggingface.co"
