"""JSON schemas of pydantic models as engines take them, and in words as prompts say them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

__all__ = ["json_schema", "shape"]

_WORDS = {"string": "string", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
_MAX_DEPTH = 8


def json_schema(form: type[BaseModel]) -> dict[str, object]:
    """The form's JSON schema: references spelt out, every property required, no others allowed, no titles.

    Constrained decoding writes the properties in this order, so a form's reasons belong before its verdict. Recursive
    forms keep their references.
    """
    made = json.loads(_schema_text(form))
    return made if isinstance(made, dict) else {}


def shape(form: type[BaseModel]) -> str:
    """The form in one line for a prompt: `{"items": [{"name": string, "pages": [integer]}]}`."""
    schema = json_schema(form)
    definitions = schema.get("$defs")
    return _shape(schema, definitions if isinstance(definitions, Mapping) else {}, 0)


@lru_cache(maxsize=256)
def _schema_text(form: type[BaseModel]) -> str:
    raw = form.model_json_schema(mode="validation")
    definitions = raw.pop("$defs", {})
    recursive = {name for name in definitions if _reaches(name, name, definitions)}
    schema = _plain(raw, {k: v for k, v in definitions.items() if k not in recursive})
    if recursive:
        kept = {k: v for k, v in definitions.items() if k not in recursive}
        schema["$defs"] = {name: _plain(definitions[name], kept) for name in sorted(recursive)}
    return json.dumps(schema)


def _reaches(start: str, wanted: str, definitions: Mapping[str, Any]) -> bool:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in _references(definitions[todo.pop()]):
            if name == wanted:
                return True
            if name not in seen and name in definitions:
                seen.add(name)
                todo.append(name)
    return False


def _references(schema: object) -> list[str]:
    if isinstance(schema, dict):
        own = [str(schema["$ref"]).rpartition("/")[2]] if "$ref" in schema else []
        return own + [name for value in schema.values() for name in _references(value)]
    if isinstance(schema, list):
        return [name for value in schema for name in _references(value)]
    return []


def _plain(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_plain(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name in definitions:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _plain({**definitions[name], **beside}, definitions)
    plain = {
        key: {field: _plain(part, definitions) for field, part in value.items()}
        if key == "properties"
        else _plain(value, definitions)
        for key, value in schema.items()
        if key not in ("title", "default", "$defs")
    }
    if "properties" in plain:
        plain["required"] = list(plain["properties"])
        plain["additionalProperties"] = False
    return plain


def _shape(schema: object, definitions: Mapping[str, object], depth: int) -> str:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return "..."
    if "$ref" in schema:
        return _shape(definitions.get(str(schema["$ref"]).rpartition("/")[2]), definitions, depth + 4)
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_shape(part, definitions, depth) for part in schema[key]))
    if "properties" in schema:
        fields = schema["properties"].items()
        return "{" + ", ".join(f'"{name}": {_shape(part, definitions, depth + 1)}' for name, part in fields) + "}"
    if schema.get("type") == "array":
        return f"[{_shape(schema.get('items', {}), definitions, depth + 1)}]"
    if schema.get("type") == "object":
        return "{name: " + _shape(schema.get("additionalProperties"), definitions, depth + 1) + "}"
    return _WORDS.get(str(schema.get("type")), "any value")
