"""What a GGUF file says of itself, read without its weights.

llama.cpp aborts the whole process on some damaged files, so a file is looked at before it is handed over.
Source: the GGUF specification (ggml, docs/gguf.md), versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coa.errors import ModelNotFound

__all__ = ["GgufHeader", "read_gguf_header"]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DAMAGED_HINT = "Pull or copy it again."


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata of a GGUF file whose tensors are all there."""

    version: int
    n_tensors: int
    metadata: Mapping[str, str | int | float | bool]
    """Scalars and strings; arrays (the vocabulary among them) are left out."""
    size_bytes: int
    """Of the whole file."""

    @property
    def architecture(self) -> str:
        """The model family in llama.cpp's words, "" where the file does not say."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def n_ctx_train(self) -> int | None:
        """The window that the model was trained for, in its own tokens."""
        return self._number("context_length")

    def kv_bytes(self, n_ctx: int) -> int:
        """Bytes of f16 attention state for `n_ctx` tokens, at most; 0 where the file does not tell."""
        n_layers, n_heads = self._number("block_count"), self._number("attention.head_count")
        width = self._number("embedding_length")
        if not n_layers or not n_heads or not width:
            return 0
        n_kv_heads = self._number("attention.head_count_kv") or n_heads
        head = width // n_heads
        per_token = (self._number("attention.key_length") or head) + (self._number("attention.value_length") or head)
        return n_layers * n_kv_heads * per_token * 2 * n_ctx

    def _number(self, key: str) -> int | None:
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) else None


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = 0

    def take(self, code: str) -> int | float | bool:
        """One little-endian scalar; struct.error past the end."""
        form = struct.Struct("<" + code)
        value: int | float | bool = form.unpack_from(self._data, self.at)[0]
        self.at += form.size
        return value

    def integer(self, code: str) -> int:
        return int(self.take(code))

    def skip(self, n_bytes: int) -> None:
        self.at += n_bytes
        if self.at > len(self._data):
            raise struct.error("past the end")

    def string(self) -> str:
        length = self.integer("Q")
        start = self.at
        self.skip(length)
        return self._data[start : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> str | int | float | bool | None:
        """The value at the cursor; None for an array, which is skipped."""
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.take(_SCALARS[kind])
        of, length = self.integer("I"), self.integer("Q")
        if of in _SCALARS:
            self.skip(length * struct.calcsize(_SCALARS[of]))
        elif of == _STRING:
            self._skip_strings(length)
        else:
            for _ in range(length):
                self.value(of)
        return None

    def _skip_strings(self, count: int) -> None:
        # Written out: a vocabulary has several hundred thousand of them.
        unpack, data, at = struct.Struct("<Q").unpack_from, self._data, self.at
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at
        self.skip(0)


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of the GGUF file at `path`; the weights are not read.

    Raises ModelNotFound when the file is missing, is no GGUF file, or ends before its last tensor.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelNotFound(f"{path} is not a GGUF file.", hint="Name a .gguf file of a chat model.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, data)
    except FileNotFoundError as exc:
        hint = "`coa models list` shows what there is."
        raise ModelNotFound(f"There is no model file {path}.", hint=hint) from exc
    except OSError as exc:
        raise ModelNotFound(f"The model file {path} cannot be read: {exc.strerror or exc}.") from exc


def _parse(path: Path, data: mmap.mmap) -> GgufHeader:
    cursor = _Cursor(data)
    cursor.at = 4
    try:
        version = cursor.integer("I")
        if version not in (2, 3):
            hint = "Versions 2 and 3 (little-endian) are read."
            raise ModelNotFound(f"{path} is GGUF version {version}.", hint=hint)
        n_tensors, n_pairs = cursor.integer("Q"), cursor.integer("Q")
        metadata: dict[str, str | int | float | bool] = {}
        for _ in range(n_pairs):
            key = cursor.string()
            value = cursor.value(cursor.integer("I"))
            if value is not None:
                metadata[key] = value
        tensors_end = _tensors_end(cursor, n_tensors)
    except (struct.error, KeyError, OverflowError) as exc:
        raise ModelNotFound(f"{path} is cut off or damaged in its header.", hint=_DAMAGED_HINT) from exc
    alignment = int(metadata.get("general.alignment", 32)) or 32
    needed = -(-cursor.at // alignment) * alignment + tensors_end
    if needed > len(data):
        missing = f"{len(data):,} of at least {needed:,} bytes are there"
        raise ModelNotFound(f"{path} is cut off: {missing}.", hint=_DAMAGED_HINT)
    return GgufHeader(version, n_tensors, metadata, len(data))


def _tensors_end(cursor: _Cursor, n_tensors: int) -> int:
    """Bytes from the start of the tensor data to the end of its last tensor."""
    import gguf

    sizes = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    end = 0
    for _ in range(n_tensors):
        cursor.string()
        n_elements = 1
        for _ in range(cursor.integer("I")):
            n_elements *= cursor.integer("Q")
        per_block, n_bytes = sizes.get(cursor.integer("I"), (1, 0))
        end = max(end, cursor.integer("Q") + n_elements // per_block * n_bytes)
    return end
