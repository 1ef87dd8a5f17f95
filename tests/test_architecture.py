"""What the source tree promises about itself, beside the import contracts in pyproject.toml."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
if not (REPOSITORY / ".git").exists():
    pytest.skip("looks at what git tracks", allow_module_level=True)
ROOMS = ("coa", "agents", "graphs", "cache")
MAX_LINES = 400
LONGER_ON_PURPOSE: frozenset[str] = frozenset()
CATCH_ALLS = {"utils", "util", "base", "helpers", "helper", "common", "misc"}


def _tracked(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "-z", "--", *patterns]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [REPOSITORY / name for name in listed.split("\0") if name]


SOURCES = [path for path in _tracked(*(f"{room}/*.py" for room in ROOMS)) if path.exists()]
TESTS = [path for path in _tracked("tests/*.py") if path.exists()]
FACES = [path for path in SOURCES if path.name == "__init__.py"]


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _module(path: Path) -> str:
    parts = list(path.relative_to(REPOSITORY).with_suffix("").parts)
    if parts[0] != "coa":
        parts.insert(0, "coa")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _exported(tree: ast.Module) -> list[str] | None:
    """What `__all__` says; None where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def test_there_are_sources_in_every_room() -> None:
    assert {path.relative_to(REPOSITORY).parts[0] for path in SOURCES} == set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_source_file_is_short_documented_absolute_and_well_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if _name(path) not in LONGER_ON_PURPOSE:
        assert text.count("\n") <= MAX_LINES
    assert path.stem not in CATCH_ALLS
    if not path.name.startswith("_") or path.name == "__init__.py":
        assert ast.get_docstring(tree), "a public module says what it is for"
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level > 0]


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_functions_fit_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            body = node.end_lineno - node.lineno + 1
            assert body <= 50, f"{node.name} has {body} lines"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.stem != "__main__"], ids=_name)
def test_what_a_module_exports_is_there_sorted_and_its_own_public_names(path: Path) -> None:
    exported = _exported(ast.parse(path.read_text(encoding="utf-8")))
    if exported is None:
        return
    module = importlib.import_module(_module(path))
    assert len(exported) == len(set(exported))
    assert [name for name in exported if not hasattr(module, name)] == []
    assert [name for name in exported if name.startswith("_") and name != "__version__"] == []


@pytest.mark.parametrize("path", FACES, ids=_name)
def test_a_face_exports_all_public_names_that_it_imports(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coa")
        for alias in node.names
    }
    assert imported - set(_exported(tree) or []) == set()


def test_rooms_are_links_that_git_keeps_as_links() -> None:
    for room in ROOMS[1:]:
        link = REPOSITORY / "coa" / room
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{room}"


def test_the_top_level_stays_as_it_was_fixed() -> None:
    folders = {p.relative_to(REPOSITORY).parts[0] for p in _tracked() if len(p.relative_to(REPOSITORY).parts) > 1}
    assert folders <= {".ci", "coa", "agents", "graphs", "cache", "tests", "examples"}


def test_the_tests_folder_is_no_package_and_its_modules_have_unique_names() -> None:
    assert not (REPOSITORY / "conftest.py").exists()
    assert [_name(p) for p in TESTS if p.name == "__init__.py"] == []
    names = [p.name for p in TESTS if p.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_no_tracked_text_names_a_registry_or_a_path_of_somebodys_machine() -> None:
    registries = r"(pypi|pythonhosted|npmjs|crates)\.(org|io)"
    machine = r"(file:///|(^|[^.<\w}])/((opt|root)\b|home/\w|Users/\w|work/|tmp/\w))"
    found = subprocess.run(
        ["git", "grep", "-nIE", f"{registries}|{machine}", "--", ".", f":!{_name(Path(__file__))}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, found.stdout + found.stderr


def test_constraints_pin_every_package_with_hashes() -> None:
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", text[re.search(r"^[a-z0-9]", text, re.MULTILINE).start() :])  # type: ignore[union-attr]
    assert len(blocks) > 50
    assert [b[:60] for b in blocks if not re.match(r"[\w.-]+==[\w.]+", b) or "--hash=sha256:" not in b] == []
    assert "litellm==1.82.7" not in text
    assert "litellm==1.82.8" not in text
