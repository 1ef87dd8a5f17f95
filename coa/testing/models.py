"""The model file that tests run on."""

from __future__ import annotations

import os
from pathlib import Path

from coa.errors import ModelNotFound
from coa.llm.catalogue import DEFAULT_MODEL
from coa.llm.download import find_model, pull

__all__ = ["test_model_path"]


def test_model_path() -> Path:
    """A small chat model as a GGUF file: $COA_TEST_MODEL, or one already in $COA_HOME/models, or pulled.

    It is pulled once into $COA_TEST_CACHE, ".coa" under the working folder by default.
    """
    named = os.environ.get("COA_TEST_MODEL")
    if named:
        if not Path(named).is_file():
            raise ModelNotFound(f"COA_TEST_MODEL names {named}, which is no file.")
        return Path(named)
    home = os.environ.get("COA_HOME")
    if home:
        found = find_model(DEFAULT_MODEL, models_dir=Path(home) / "models")
        if found is not None:
            return found.path
    cache = Path(os.environ.get("COA_TEST_CACHE") or ".coa") / "models"
    found = find_model(DEFAULT_MODEL, models_dir=cache)
    return found.path if found is not None else pull(DEFAULT_MODEL, models_dir=cache)


test_model_path.__test__ = False  # type: ignore[attr-defined] # pytest would take it for a test
