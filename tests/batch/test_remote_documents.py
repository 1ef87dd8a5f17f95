"""Documents at URLs: listed, fetched within limits, and every failure told apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coa.batch.remote import RemoteUnavailable, fetch, file_at, files_at, is_url, name_of
from coa.errors import ConfigError, DocumentError, DocumentTooLarge

pytest.importorskip("fsspec")


class _Store(BaseHTTPRequestHandler):
    """What the path says: a document, a refusal, or silence."""

    server: _Server

    def do_GET(self) -> None:
        name = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {name}")
        if name == "/silent.txt":
            self.server.ending.wait(30)
            return
        status = {"/secret.txt": 403, "/gone.txt": 404}.get(name, 200)
        if name == "/flaky.txt" and self.server.asked.count(f"{self.command} {name}") == 1:
            status = 503
        body = b"It was a bright cold day in April."
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if status == 200 else 0))
        self.send_header("ETag", '"v1"')
        self.end_headers()
        if status == 200 and self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Store)
        self.asked: list[str] = []
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def store() -> Iterator[_Server]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.ending.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name, text in (("b.txt", "two"), ("a.txt", "one"), ("deep/c.md", "three"), (".hidden", "no"), (".git/d", "no")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return f"file://{tmp_path}"


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("s3://bucket/a.txt", True),
        ("https://host/a", True),
        ("simplecache::s3://bucket/a", False),
        ("a.txt", False),
        ("/data/a", False),
        ("C:/a.txt", False),
        ("c://a", False),
    ],
)
def test_urls_are_told_from_paths(source: str, wanted: bool) -> None:
    assert is_url(source) is wanted


def test_a_document_is_called_by_the_last_part_of_its_path() -> None:
    assert name_of("https://host/books/Moby%20Dick.epub?sig=1") == "Moby Dick.epub"
    assert name_of("s3://bucket") == "s3://bucket"


def test_a_folder_is_listed_in_order_without_hidden_names(folder: str) -> None:
    found = list(files_at(folder))
    assert [file.url.removeprefix(folder) for file in found] == ["/a.txt", "/b.txt", "/deep/c.md"]
    assert [file.size for file in found] == [3, 3, 5]
    assert all(file.version for file in found)


def test_a_glob_and_a_file_are_listed(folder: str) -> None:
    assert [name_of(file.url) for file in files_at(f"{folder}/*.txt")] == ["a.txt", "b.txt"]
    assert [file.url for file in files_at(f"{folder}/.hidden")] == [f"{folder}/.hidden"]
    assert list(files_at(f"{folder}/*.pdf")) == []


def test_nothing_at_an_address_is_an_error_and_an_empty_folder_is_none(folder: str, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no file"):
        list(files_at(f"{folder}/nowhere"))
    (tmp_path / "empty").mkdir()
    assert list(files_at(f"{folder}/empty")) == []


def test_a_changed_file_has_another_version(folder: str, tmp_path: Path) -> None:
    before = file_at(f"{folder}/a.txt")
    assert file_at(f"{folder}/a.txt") == before
    (tmp_path / "a.txt").write_text("another")
    assert file_at(f"{folder}/a.txt").version != before.version


def test_bytes_are_fetched_up_to_the_limit(folder: str) -> None:
    assert fetch(f"{folder}/deep/c.md", max_bytes=5) == b"three"
    with pytest.raises(DocumentTooLarge, match=r"c\.md holds more"):
        fetch(f"{folder}/deep/c.md", max_bytes=4)


def test_a_document_is_fetched_over_http_with_its_query(store: _Server) -> None:
    (found,) = files_at(f"{store.url}/a.txt?part=[1]")
    assert found.version == 'ETag="v1"'
    assert fetch(found.url, max_bytes=1000).startswith(b"It was a bright")


def test_what_a_store_refuses_is_told_apart_from_what_may_pass(store: _Server) -> None:
    with pytest.raises(DocumentError, match="no file"):
        fetch(f"{store.url}/gone.txt", max_bytes=10)
    with pytest.raises(DocumentError, match="403") as refused:
        fetch(f"{store.url}/secret.txt", max_bytes=10)
    assert not isinstance(refused.value, RemoteUnavailable)
    n_asked = len(store.asked)
    assert fetch(f"{store.url}/flaky.txt", max_bytes=1000).startswith(b"It was")
    assert len(store.asked) > n_asked + 1, "asked again after a 503"


def test_a_silent_store_holds_nobody_longer_than_its_time(store: _Server) -> None:
    with pytest.raises(RemoteUnavailable, match=r"within 0\.2 s"):
        fetch(f"{store.url}/silent.txt", max_bytes=10, timeout_s=0.2)


def test_addresses_that_cannot_work_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="holds a password") as refused:
        list(files_at("ftp://me:hunter2@host/a.txt"))
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigError, match="nosuch"):
        list(files_at("nosuch://host/a.txt"))


def test_a_server_that_is_not_there_may_come_back(store: _Server) -> None:
    url = store.url
    store.shutdown()
    store.server_close()
    with pytest.raises(RemoteUnavailable):
        fetch(f"{url}/a.txt", max_bytes=10)
