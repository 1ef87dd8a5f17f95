"""What is written of a run: the same values as by `asdict`, on lines that people can read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import NamedTuple

import pytest

from coa.run_files import fields_of, json_in_lines, json_of


class _Pair(NamedTuple):
    left: int
    right: str


@dataclass(frozen=True, slots=True)
class _Leaf:
    name: str
    pair: _Pair | None = None


@dataclass(frozen=True)
class _Tree:
    leaves: tuple[_Leaf, ...]
    by_name: dict[str, _Leaf]
    share: float = 0.1


_TREE = _Tree((_Leaf("élan\u2028", _Pair(1, "a")), _Leaf('"')), {"of\nall": _Leaf("x")})


def test_dataclasses_are_written_as_their_fields_at_any_depth() -> None:
    assert json.loads(json_of(_TREE)) == json.loads(json.dumps(asdict(_TREE)))
    assert json_of({"kind": "leaf", **fields_of(_Leaf("é"))}) == '{"kind":"leaf","name":"é","pair":null}'
    assert fields_of(_TREE)["leaves"] is _TREE.leaves


def test_an_object_in_lines_has_one_for_each_key_and_holds_the_same() -> None:
    text = json_in_lines(_TREE)
    assert json.loads(text) == json.loads(json_of(_TREE))
    assert [line.split(":")[0].strip() for line in text.split("\n")[1:-2]] == ['"leaves"', '"by_name"', '"share"']
    assert json_in_lines({"a": 1}) == '{\n "a": 1\n}\n'
    assert json.loads(json_in_lines({})) == {}


@pytest.mark.parametrize("value", [object(), _Tree, {"a": {1, 2}}])
def test_what_has_no_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        json_of(value)
