"""Tests with a real vLLM on this machine's CPU: `make test-vllm`; it takes 3.4 GB to set up.

Without it they are skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live_vllm.vllm_process import vllm_home


@pytest.fixture(scope="session")
def home() -> Path:
    """What tests/tools/setup_vllm.py made."""
    found = vllm_home()
    if found is None:
        pytest.skip("COA_TEST_VLLM names no folder: make test-vllm")
    return found
