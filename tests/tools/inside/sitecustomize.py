"""Python runs this at its start where the folder is on the path: puts an engine in litellm's place. See
`inside_engine.py`."""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class _Engine:
    """Replies after a while; writes down now and then what it has seen."""

    def __init__(self, latency_s: float, folder: str, reply: dict[str, Any]) -> None:
        self._latency_s = latency_s
        self._path = Path(folder) / f"{os.getpid()}.json"
        self._reply = reply
        self._at_once = 0
        self._told_at = 0.0
        self._seen: dict[str, float] = {"calls": 0, "most_at_once": 0, "first": 0.0, "last": 0.0}
        self.litellm: Any = None

    async def complete(self, **_: Any) -> Any:
        """In the place of `litellm.acompletion`."""
        seen = self._seen
        seen["first"] = seen["first"] or time.monotonic()
        seen["calls"] += 1
        self._at_once += 1
        seen["most_at_once"] = max(seen["most_at_once"], self._at_once)
        try:
            await asyncio.sleep(self._latency_s)
        finally:
            self._at_once -= 1
            seen["last"] = time.monotonic()
            if not self._at_once or seen["calls"] >= self._told_at + 100:
                self._told_at = seen["calls"]
                self._path.write_text(json.dumps(seen))
        return self.litellm.ModelResponse(**self._reply)


class _Replacing(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "coa.llm.litellm_model":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            load = module.load_litellm

            def load_litellm() -> Any:
                if engine.litellm is None:
                    engine.litellm = load()
                    engine.litellm.acompletion = engine.complete
                return engine.litellm

            module.load_litellm = load_litellm

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "INSIDE_ENGINE" in os.environ:
    engine = _Engine(*json.loads(os.environ["INSIDE_ENGINE"]))
    sys.meta_path.insert(0, _Replacing())
