"""`reading_limits` and `reader`: checked as settings, and handed to the worker that reads."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import coa
from coa.config import Settings, load_settings
from coa.document_limits import DEFAULT_LIMITS
from coa.documents.isolation import end_workers
from coa.errors import ConfigError, DocumentTooLarge
from coa.testing.pdf_files import Page, pdf_file, prose

TWO_PAGES = pdf_file([Page(prose(["It rained on the harbour."])), Page(prose(["Nobody minded."]))])


def load(tmp_path: Path, **options: Any) -> Settings:
    return load_settings(cwd=tmp_path, env={"COA_HOME": str(tmp_path)} | options.pop("env", {}), **options).settings


def test_limits_that_are_not_given_stay_at_their_defaults(tmp_path: Path) -> None:
    (tmp_path / "coa.yaml").write_text("reading_limits: {max_pages: 7, max_seconds: 2.5}\nmax_document_bytes: 90\n")
    expected = asdict(DEFAULT_LIMITS) | {"max_pages": 7, "max_seconds": 2.5, "max_bytes": 90}
    assert asdict(load(tmp_path).document_limits) == expected


def test_without_a_setting_only_the_bytes_differ_from_the_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert asdict(settings.document_limits) == asdict(DEFAULT_LIMITS) | {"max_bytes": settings.max_document_bytes}


def test_limits_come_from_toml_and_from_the_environment_as_json(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.coa.reading_limits]\nmax_depth = 9\n")
    assert load(tmp_path).document_limits.max_depth == 9
    env = {"COA_READING_LIMITS": '{"max_pages": 3}'}
    assert load(tmp_path, env=env).document_limits.max_pages == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{max_page: 1}", "unknown key 'max_page'; did you mean 'max_pages'?"),
        ("{colour: 1}", "unknown key 'colour'; `coa config show` lists the keys."),
        ("{max_bytes: 1}", "max_bytes is set by max_document_bytes"),
        ("{max_pages: 0}", "max_pages: expected a whole number above 0, got 0"),
        ("{max_pages: 1.5}", "max_pages: expected a whole number above 0, got 1.5"),
        ("{max_pages: yes}", "max_pages: expected a whole number above 0, got True"),
        ("{max_seconds: -1}", "max_seconds: expected a number above 0, got -1"),
        ("{max_seconds: .inf}", "max_seconds: expected a number above 0, got inf"),
        ("{max_seconds: soon}", "max_seconds: expected a number above 0, got 'soon'"),
        ("[1]", "expected a valid dictionary"),
    ],
)
def test_what_is_no_limit_is_refused(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "coa.yaml").write_text(f"reading_limits: {given}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'coa.yaml'}: reading_limits: {said}")


def test_settings_survive_being_written_and_read_again(tmp_path: Path) -> None:
    settings = load(tmp_path, overrides={"reading_limits": {"max_pages": 7}})
    assert Settings(**settings.model_dump(mode="json")) == settings


async def test_a_pdf_of_more_pages_is_refused_before_any_model_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DocumentTooLarge, match="2 pages where at most 1 are read"):
        await coa.ask(TWO_PAGES, "Who?", home=tmp_path, model="no-such-model", reading_limits={"max_pages": 1})


async def test_an_unknown_reader_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no reader 'nobody'"):
        await coa.ask(TWO_PAGES, "Who?", home=tmp_path, model="no-such-model", reader="nobody")


@pytest.mark.slow
async def test_a_reading_over_its_seconds_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ndef read(data, *, name, limits):\n    time.sleep(600)\n")
    info = tmp_path / "sleeper-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeper\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[coa.readers]\nsleeper = sleeper:read\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    end_workers()
    began = time.monotonic()
    with pytest.raises(DocumentTooLarge, match=r"more than 0\.1 seconds.*") as caught:
        await coa.ask(b"text", "Who?", home=tmp_path, reader="sleeper", reading_limits={"max_seconds": 0.1})
    assert time.monotonic() - began < 30
    assert "reading_limits" in str(caught.value.hint)
