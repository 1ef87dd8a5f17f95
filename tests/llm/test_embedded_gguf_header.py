"""Reading headers of small GGUF files made here."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from coa.errors import ModelNotFound
from coa.llm.gguf_header import read_gguf_header


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_block_count(3)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_token_list([f"token {n}" for n in range(300)])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_tensor("a", np.ones((4, 64), dtype=np.float32))
    blocks = gguf.quantize(np.ones((8, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("b", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_header_tells_family_window_and_state_size(model: Path) -> None:
    header = read_gguf_header(model)
    assert (header.version, header.n_tensors, header.architecture, header.n_ctx_train) == (3, 2, "llama", 4096)
    assert header.size_bytes == model.stat().st_size
    # layers × kv heads × (key + value) width × two bytes × tokens
    assert header.kv_bytes(10) == 3 * 2 * (16 + 16) * 2 * 10
    assert "tokenizer.ggml.tokens" not in header.metadata


def test_every_cut_is_noticed(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    unpadded = 4 * 64 * 4 + 8 * 64 // 32 * 34
    tail = len(data) - (len(data) - unpadded) // 32 * 32 - unpadded
    cut = tmp_path / "cut.gguf"
    for length in [*range(0, len(data) - 64, 97), len(data) - max(tail, 0) - 40]:
        cut.write_bytes(data[:length])
        with pytest.raises(ModelNotFound):
            read_gguf_header(cut)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a GGUF"),
        (b"<html>", "not a GGUF"),
        (b"GGUF" + (1).to_bytes(4, "little"), "version 1"),
        (b"GGUF" + (3).to_bytes(4, "big"), "version"),
        (b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 64, "damaged"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelNotFound, match=words):
        read_gguf_header(path)


def test_a_missing_file_and_a_folder_are_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelNotFound):
            read_gguf_header(path)
