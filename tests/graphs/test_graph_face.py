"""The graphs as a library: compiled, drawn, described, found by name and by entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

import coa.graphs
from coa.errors import ConfigError
from coa.graphs import STRATEGIES, Strategy, graph, mermaid, registry, schemas, strategies, strategy
from coa.graphs.chain import build_chain

PICTURES = Path(__file__).resolve().parents[2] / "graphs" / "README.md"
NAMES = sorted(STRATEGIES)


def test_every_name_of_the_face_can_be_imported() -> None:
    assert all(hasattr(coa.graphs, name) for name in coa.graphs.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_in_the_readme_is_the_graphs(name: str) -> None:
    text = PICTURES.read_text(encoding="utf-8")
    assert f"## {name}\n" in text
    assert f"```mermaid\n{mermaid(name).strip()}\n```" in text, "run python tests/tools/draw_graphs.py"


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_small_and_the_context_names_its_fields(name: str) -> None:
    found = schemas(name)
    assert found["input"]["required"] == ["question"]
    assert {"answer", "citations", "coverage"} <= found["output"]["properties"].keys()
    assert {"parts", "notes", "agents"} <= found["context"].keys()
    assert found["agents"] == sorted(STRATEGIES[name].agents)


def test_compiled_graphs_have_no_checkpointer_and_are_made_once() -> None:
    assert graph("chain").checkpointer is None
    assert graph("chain") is graph("chain")


async def test_a_run_with_checkpoints_leaves_none_to_the_graph_that_it_shares_with_others(world: Any) -> None:
    first = await world().run("chain")
    assert (graph("chain").checkpointer, graph("chain").name) == (None, "chain")
    assert await world(run_id="another").run("chain") == first


@pytest.mark.parametrize("name", [*STRATEGIES, "outline", "check"])
def test_no_step_and_no_choice_of_the_next_one_takes_a_thread(name: str) -> None:
    made = strategy(name).build()
    choices = [branch.path for branches in made.branches.values() for branch in branches.values()]
    steps = [node.runnable for node in made.nodes.values()]
    assert steps
    assert [one for one in (*choices, *steps) if getattr(one, "func", None) is not None] == []


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts entry points in place of those of installed packages."""
    registry._installed.cache_clear()

    def install(*values: str) -> None:
        points = EntryPoints(EntryPoint(f"s{n}", value, registry.ENTRY_POINT_GROUP) for n, value in enumerate(values))
        monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
        registry._installed.cache_clear()

    yield install
    registry._installed.cache_clear()


def made_elsewhere() -> Strategy:
    return Strategy("elsewhere", "a strategy of another package", build_chain)


def test_strategies_of_installed_packages_are_found(installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coa.graphs, "made_elsewhere", made_elsewhere, raising=False)
    installed("coa.graphs:made_elsewhere")
    assert strategy("elsewhere").description == "a strategy of another package"
    assert set(strategies()) == {*NAMES, "elsewhere"}
    assert strategy("chain").build is build_chain


@pytest.mark.parametrize("value", ["coa.graphs:not_there", "no_such_package:strategy", "coa.graphs:STATE_VERSION"])
def test_a_package_that_brings_none_is_named(installed: Any, value: str) -> None:
    installed(value)
    assert strategy("chain").name == "chain", "coa's own do not depend on it"
    with pytest.raises(ConfigError, match=value.partition(":")[0]):
        strategy("elsewhere")
