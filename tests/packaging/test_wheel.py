"""The wheel as a user gets it: built from the sdist, installed outside the repository.

The empty environment sees this one's third-party packages through a .pth file; a .pth inside that folder (the
editable install's among them) is not read there, so `coa` can only come from the wheel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("agents", "graphs", "cache")
BOOK = REPOSITORY / "examples" / "novel" / "the-salt-ledger.txt"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="compares with what git tracks"),
]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--sdist",
        "--outdir",
        folder,
        REPOSITORY,
    ]
    _run(build, cwd=folder)
    return _only(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = _only(p for p in folder.iterdir() if p.is_dir())
    build: list[str | Path] = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, source]
    _run(build, cwd=folder)
    return _only(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    place = _run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=folder).strip()
    site_packages = Path(place)
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-qq",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    _run(install, cwd=folder)
    (site_packages / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def test_sdist_holds_every_tracked_file_of_the_rooms_once_and_no_links(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = [m.name.partition("/")[2] for m in members]
    assert len(names) == len(set(names))
    assert not [m.name for m in members if m.issym() or m.islnk()]
    assert not [n for n in names if n.startswith(tuple(f"coa/{room}/" for room in ROOMS))]
    tracked = {n for n in _tracked("coa", "tests", "examples", *ROOMS) if n not in {f"coa/{room}" for room in ROOMS}}
    assert tracked - set(names) == set()
    assert {"pyproject.toml", "README.md", "LICENSE"} <= set(names)


def test_wheel_holds_the_rooms_under_coa_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert len(names) == len(set(names))
    assert not [e.filename for e in entries if (e.external_attr >> 16) & 0o170000 == 0o120000]
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"coa"}
    expected = {n for n in _tracked("coa") if n not in {f"coa/{room}" for room in ROOMS}}
    expected |= {f"coa/{n}" for n in _tracked(*ROOMS)}
    assert expected - set(names) == set()
    assert "coa/py.typed" in names
    assert any(n.startswith("coa/agents/prompts/") and n.endswith(".md") for n in names)


def test_wheel_says_its_licence_python_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        commands = archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "coa = coa.cli.main:main" in commands


def test_every_module_imports_from_the_installed_wheel_outside_the_repository(python: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, json, pkgutil, sys\n"
        "import coa\n"
        "names = ['coa', *(m.name for m in pkgutil.walk_packages(coa.__path__, 'coa.'))]\n"
        "names = [n for n in names if not n.endswith('__main__')]\n"
        "print(json.dumps({n: importlib.import_module(n).__file__ for n in names}))\n"
    )
    files: dict[str, str | None] = json.loads(_run([python, "-c", code], cwd=tmp_path))
    assert {f"coa.{room}" for room in ROOMS} <= set(files)
    installed = python.parents[1]
    assert [f for f in files.values() if f is None or not Path(f).is_relative_to(installed)] == []
    modules = [n for n in _tracked("coa", *ROOMS) if n.endswith(".py") and not n.endswith("__main__.py")]
    assert len(files) == len(modules)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_no_top_level_packages(python: Path, room: str, tmp_path: Path) -> None:
    done = subprocess.run([python, "-c", f"import {room}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"No module named '{room}'" in done.stderr


def test_command_of_the_wheel_helps_and_inspects_the_example_novel(python: Path, tmp_path: Path) -> None:
    coa = python.with_name("coa")
    assert "inspect" in _run([coa, "--help"], cwd=tmp_path)
    environment = {"COA_HOME": str(tmp_path / "home")}
    told = json.loads(_run([coa, "inspect", BOOK, "--json"], cwd=tmp_path, environment=environment))
    assert told["document"] == BOOK.name
    assert told["words"] > 12_000
    assert len(told["chapters"]) >= 12


def _run(command: Sequence[str | Path], *, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """What the command prints; its stderr is in the failure."""
    kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, cwd=cwd, env=kept | (environment or {}), capture_output=True, text=True)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _tracked(*folders: str) -> list[str]:
    listed = _run(["git", "ls-files", "-z", "--", *folders], cwd=REPOSITORY)
    return [n for n in listed.split("\0") if n]


def _only(paths: Iterator[Path]) -> Path:
    (path,) = paths
    return path
