"""A home, documents and a batch over them, for tests in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coa.batch.asking import question_payload
from coa.batch.record import BatchOptions, BatchRecord, BatchStore
from coa.batch.results import ResultFolder
from coa.batch.running import BatchEnd, run_batch
from coa.config import Settings
from coa.testing.fault_server import FaultServer

WHO = question_payload("Who had the key?")


class Place:
    """A home, a folder of documents and one of results."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.server = server
        self.documents = folder / "documents"
        self.documents.mkdir()
        self.out = folder / "out"
        params = {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"}
        info = {"kind": "hosted", "max_input_tokens": 4096}
        entries = [{"model_name": name, "litellm_params": params, "model_info": info} for name in ("readers", "others")]
        self.settings = Settings(
            home=folder / "home",
            model="readers",
            notes="paper",
            chunk_tokens=300,
            retries=1,
            response_cache=False,
            model_list=entries,
        )
        self.store = BatchStore(self.settings.home)

    def write(self, name: str, n: int = 20) -> None:
        lines = (f"On day {i} the keeper of {name} wrote that the brass key hung by door number {i}." for i in range(n))
        (self.documents / name).write_text("\n\n".join(lines))

    def record(self, *payloads: str, **options: Any) -> BatchRecord:
        return self.store.create(
            task="ask",
            inputs=(str(self.documents),),
            payloads=payloads or (WHO,),
            out=self.out,
            settings=self.settings,
            options=BatchOptions(**{"jobs": 4, **options}),
        )

    async def run(self, record: BatchRecord, **more: Any) -> BatchEnd:
        return await run_batch(record, self.settings, estimate=False, **more)

    def rows(self) -> list[dict[str, Any]]:
        return list(ResultFolder(self.out).rows())

    def states(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.rows():
            found.setdefault(row["document"], []).append(row["state"])
        return found

    @property
    def calls(self) -> int:
        return self.server.stats().calls
