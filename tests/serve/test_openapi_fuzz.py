"""The service against what its OpenAPI says, by schemathesis: no answer of 5xx, every answer as described.

Half of what is drawn names a document and runs that there are. COA_FUZZ_EXAMPLES (of each operation) makes it longer.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coa.config import Settings
from coa.serve import create_app
from coa.testing.fault_server import FaultServer

pytest.importorskip("schemathesis")

import schemathesis
import schemathesis.generation.jsonschema.strategy  # now: compiling it deep in a call stack fails on 3.11
import uvicorn
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.slow

N_EXAMPLES = int(os.environ.get("COA_FUZZ_EXAMPLES", "12"))
SEED = int(os.environ.get("COA_FUZZ_SEED", "20261122"))
TEXT = "The ferry left at noon. Ada Brown kept the lighthouse key in the blue jar. Nobody slept.\n"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SLOW_BY_NATURE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.fixture
def url(settings: Settings, engine: FaultServer) -> Iterator[str]:
    """Of a service in a thread of its own."""
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    serving = threading.Thread(target=server.run)
    serving.start()
    while not server.started:
        assert serving.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    serving.join()


def test_no_call_that_the_description_allows_or_forbids_breaks_the_service(url: str) -> None:
    document = httpx.post(f"{url}/v1/documents", content=TEXT.encode(), timeout=60).json()["document"]
    asked = {"document": document, "question": "Who kept the lighthouse key in the blue jar?"}
    run_id = httpx.post(f"{url}/v1/runs", json=asked, timeout=60).json()["run_id"]
    statuses: Counter[tuple[str, int]] = Counter()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        for mode in modes:
            if mode is modes[1] and not (operation.body or operation.path_parameters or operation.query):
                continue  # nothing to be wrong in
            drawn = operation.as_strategy(generation_mode=mode)

            @seed(SEED)
            @hypothesis_settings(
                max_examples=N_EXAMPLES, deadline=None, database=None, suppress_health_check=SLOW_BY_NATURE
            )
            @given(case=drawn, known=st.booleans())
            def call(case: Any, known: bool) -> None:
                if known:
                    _name_what_there_is(case, document, run_id)
                response = case.call(timeout=60)
                statuses[case.operation.label, response.status_code] += 1
                case.validate_response(response, checks=CHECKS)

            call()
    told = "\n".join(f"{label} {status}: {n}" for (label, status), n in sorted(statuses.items()))
    if "COA_FUZZ_EXAMPLES" in os.environ:
        Path("fuzz-statuses.txt").write_text(told + "\n")
    assert statuses["POST /v1/runs", 200] > 0, told
    assert statuses["POST /v1/runs", 422] > 0, told
    assert statuses["POST /v1/runs/{run_id}/resume", 200] > 0, told
    assert httpx.post(f"{url}/v1/runs", json=asked, timeout=60).status_code == 200, "it goes on after all of that"


def _name_what_there_is(case: Any, document: str, run_id: str) -> None:
    if isinstance(case.body, dict) and "document" in case.body:
        case.body["document"] = document
        case.body.pop("strategy", None)  # hardly a drawn one is a strategy's name
        if case.body.get("task") == "summarize":
            case.body.pop("question", None)
        elif not case.body.get("question"):
            case.body["question"] = "Who kept the lighthouse key in the blue jar?"
    for key, value in {"document": document, "run_id": run_id}.items():
        if case.path_parameters and key in case.path_parameters:
            case.path_parameters[key] = value
