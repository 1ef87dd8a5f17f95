"""How quickly commands start, and what they leave alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COA_", "COV_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "COA_HOME": str(home)}


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["ask", "--help"],
        ["eval", "run", "--help"],
        ["runs", "list"],
        ["runs"],
        ["config", "show"],
        ["config", "path"],
        ["models", "list"],
        ["inspect", "book.txt", "--text"],
    ],
    ids=" ".join,
)
def test_light_commands_leave_the_heavy_libraries_alone(tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "book.txt").write_text("The cat sat.\n")
    code = (
        "import sys\n"
        "from coa.cli.main import run\n"
        f"code = run({args!r})\n"
        "heavy = {'litellm', 'langgraph', 'langchain_core', 'xllamacpp', 'numpy', 'tenacity', 'redis'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "[]"), done.stderr


def test_help_imports_neither_pydantic_nor_rich(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from coa.cli.main import run\n"
        "run(['--help'])\n"
        "print(sorted({'pydantic', 'rich.console', 'asyncio', 'yaml'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True)
    assert done.stderr == "[]\n"


def test_completion_leaves_the_heavy_libraries_alone(tmp_path: Path) -> None:
    env = {**environment(tmp_path), "_COA_COMPLETE": "complete_bash", "COMP_WORDS": "coa su", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "coa"], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["summarize"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported & {"litellm", "langgraph", "xllamacpp", "numpy"} == set()


@pytest.mark.slow
def test_help_starts_about_as_quickly_as_its_libraries(tmp_path: Path) -> None:
    """The aim is 1.5 times `import typer, rich`; a busy machine is given room up to twice."""
    commands = {"libraries": ["-c", "import typer, rich"], "help": ["-m", "coa", "--help"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(11):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], env=environment(tmp_path), check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    assert medians["help"] < 2 * medians["libraries"], medians
