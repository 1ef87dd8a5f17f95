"""`reading_limits` and `reader` on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from coa.config import Settings
from coa.testing.pdf_files import Page, pdf_file, prose

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

TWO_PAGES = pdf_file([Page(prose(["It rained on the harbour."])), Page(prose(["Nobody minded."]))])


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_a_book_over_a_limit_is_refused(cli: Cli, source: str) -> None:
    (cli.folder / "coa.yaml").write_text("reading_limits: {max_pages: 1}\n")
    (cli.folder / "book.pdf").write_bytes(TWO_PAGES)
    result = cli("ask", "-", "Who?", stdin=TWO_PAGES) if source == "stdin" else cli("ask", "book.pdf", "Who?")
    assert result.code == 5
    assert "has 2 pages where at most 1 are read" in result.err
    assert not cli.api.calls


def test_a_reader_is_chosen_by_flag_variable_and_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for args in (["inspect", "book.txt"], ["ask", "book.txt", "Who?"], ["summarize", "book.txt"]):
        refused = cli(*args, "--reader", "nobody")
        assert refused.code == 2
        assert "There is no reader 'nobody'." in refused.err
    (cli.folder / "coa.yaml").write_text("reader: nobody\n")
    assert cli("ask", "book.txt", "Who?").code == 2
    assert cli("ask", "book.txt", "Who?", "--reader", "text").code == 0
    monkeypatch.setenv("COA_READER", "text")
    assert cli("ask", "book.txt", "Who?").code == 0


def test_config_shows_and_checks_the_limits(cli: Cli) -> None:
    (cli.folder / "coa.yaml").write_text("reading_limits: {max_pages: 1}\n")
    shown = json.loads(cli("config", "show", "--json").out)["reading_limits"]
    assert shown == Settings().reading_limits | {"max_pages": 1}
    assert cli("config", "validate").code == 0
    (cli.folder / "coa.yaml").write_text("reading_limits: {max_page: 1}\n")
    result = cli("config", "validate")
    assert result.code == 2
    assert "did you mean 'max_pages'?" in result.err


def test_the_written_config_has_every_limit_at_its_default(cli: Cli) -> None:
    cli("config", "init")
    lines = [line[2:] for line in (cli.folder / "coa.yaml").read_text().splitlines()]
    at = lines.index("reading_limits:")
    block = lines[at + 1 : at + 1 + len(Settings().reading_limits)]
    assert yaml.safe_load("\n".join(block)) == Settings().reading_limits
