"""The Q8_0 copy says the same as the file that it was made from."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from coa.errors import ModelNotFound, StorageError
from coa.llm.requantize import REQUANTIZE_VERSION, is_current, manifest_path, requantize_to_q8_0


def _write(path: Path) -> None:
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(3)
    writer.add_context_length(64)
    writer.add_token_list(["a", "ü", "我"])
    writer.add_token_types([1, 1, 3])
    writer.add_chat_template("{{ messages }}")
    writer.add_add_bos_token(False)
    kinds = gguf.GGMLQuantizationType
    for name, kind in (("q41", kinds.Q4_1), ("q40", kinds.Q4_0), ("q51", kinds.Q5_1), ("q80", kinds.Q8_0)):
        values = random.standard_normal((6, 96), dtype=np.float32) * random.exponential(1.0)
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor("norm", random.standard_normal(96, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "m.Q4_1.gguf"
    _write(path)
    return path


def _values(tensor: Any) -> Any:
    return gguf.dequantize(tensor.data, tensor.tensor_type).reshape(-1)


def _assert_same_model(before: Path, after: Path) -> None:
    old, new = gguf.GGUFReader(before), gguf.GGUFReader(after)
    assert list(old.fields) == list(new.fields)
    for name, field in old.fields.items():
        other = new.fields[name]
        assert other.types == field.types, name
        if name == "general.file_type":
            assert other.contents() == 7
        else:
            assert other.contents() == field.contents(), name
    low = {"Q4_0", "Q4_1", "Q5_0", "Q5_1"}
    for tensor, copy in zip(old.tensors, new.tensors, strict=True):
        assert copy.name == tensor.name
        assert copy.shape.tolist() == tensor.shape.tolist()
        if tensor.tensor_type.name not in low:
            assert copy.tensor_type == tensor.tensor_type
            assert np.array_equal(copy.data, tensor.data)
            continue
        assert copy.tensor_type.name == "Q8_0"
        error = np.abs(_values(tensor) - _values(copy)).reshape(-1, 32).max(axis=1)
        largest = np.abs(_values(tensor)).reshape(-1, 32).max(axis=1)
        # Half a step of 127, and the step itself is rounded to half precision.
        assert (error <= largest * (0.5 / 127 + 2.0**-11) + 1e-7).all(), tensor.name


def test_metadata_stays_and_weights_move_by_less_than_a_step(source: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    target = tmp_path / "m.Q8_0.gguf"
    requantize_to_q8_0(source, target, source_sha256="abc", progress=lambda *step: steps.append(step))
    _assert_same_model(source, target)
    assert steps == [("requantize", n, 5) for n in range(1, 6)]


def test_a_copy_is_current_only_for_its_source_and_version_and_size(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.Q8_0.gguf"
    assert not is_current(target, source_sha256="abc")
    requantize_to_q8_0(source, target, source_sha256="abc")
    assert is_current(target, source_sha256="abc")
    assert not is_current(target, source_sha256="abd")
    kept = json.loads(manifest_path(target).read_text())
    assert kept["version"] == REQUANTIZE_VERSION
    target.write_bytes(target.read_bytes()[:-1])
    assert not is_current(target, source_sha256="abc")


def test_a_failure_in_the_middle_leaves_no_copy(source: Path, tmp_path: Path) -> None:
    def fail(_: str, done: int, __: int | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    target = tmp_path / "m.Q8_0.gguf"
    with pytest.raises(KeyboardInterrupt):
        requantize_to_q8_0(source, target, source_sha256="abc", progress=fail)
    assert [each.name for each in tmp_path.iterdir()] == [source.name]


def test_what_is_no_whole_model_is_refused(source: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(source.read_bytes()[:40])
    with pytest.raises(ModelNotFound):
        requantize_to_q8_0(cut, tmp_path / "t.gguf", source_sha256="abc")
    with pytest.raises(StorageError):
        requantize_to_q8_0(source, tmp_path / "missing" / "t.gguf", source_sha256="abc")


@pytest.mark.slow
def test_the_default_model_s_copy_is_the_same_model(tmp_path: Path) -> None:
    from coa.llm.catalogue import CATALOGUE, DEFAULT_MODEL
    from coa.testing.models import test_model_path as model_path_for_tests

    original = model_path_for_tests().parent / CATALOGUE[DEFAULT_MODEL].file_name
    if not original.is_file():
        pytest.skip("the tests run on another model")
    copy = requantize_to_q8_0(original, tmp_path / "copy.gguf", source_sha256="abc")
    _assert_same_model(original, copy)
