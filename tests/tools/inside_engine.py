"""A model that is no server: in every process of a batch it stands in litellm's place (`inside/sitecustomize.py`)."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["InsideEngine"]

_spec = importlib.util.spec_from_file_location("quick_engine", Path(__file__).with_name("quick_engine.py"))
assert _spec is not None
assert _spec.loader is not None
quick = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("quick_engine", quick)
_spec.loader.exec_module(quick)


class InsideEngine:
    """What a batch's processes are started with, and what their engines have seen; a context manager."""

    base_url = "http://127.0.0.1:9/v1"  # where nothing listens: a call that went there would fail

    def __init__(self, *, latency_s: float) -> None:
        self._folder = tempfile.mkdtemp(prefix="coa-inside-")
        told = json.dumps([latency_s, self._folder, quick.COMPLETION])
        self.environment = {"INSIDE_ENGINE": told}
        self.python_path = [str(Path(__file__).with_name("inside"))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def ended(self) -> Any:
        """What all of them have seen. Most at once is the sum of what each has: they may have had it at other times."""
        found = [json.loads(path.read_text()) for path in Path(self._folder).glob("*.json")]
        return quick.Seen(
            calls=sum(one["calls"] for one in found),
            most_at_once=sum(one["most_at_once"] for one in found),
            first=min((one["first"] for one in found), default=0.0),
            last=max((one["last"] for one in found), default=0.0),
        )
