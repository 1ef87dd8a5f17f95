import pytest

from coa.llm.catalogue import CATALOGUE, DEFAULT_MODEL, CatalogueModel, HubFile, RegistryPackage, catalogue_model


def test_the_default_is_first_and_comes_from_the_package_registry() -> None:
    assert next(iter(CATALOGUE)) == DEFAULT_MODEL
    assert isinstance(CATALOGUE[DEFAULT_MODEL].source, RegistryPackage)


def test_names_are_found_in_any_case() -> None:
    assert catalogue_model("SmolLM2-135M") is CATALOGUE[DEFAULT_MODEL]
    assert catalogue_model("no-such-model") is None


def test_no_two_entries_share_a_file() -> None:
    files = [each.file_name for each in CATALOGUE.values()]
    files += [each.requantised_name for each in CATALOGUE.values() if each.requantised_name]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.name)
def test_an_entry_is_complete_and_fits_its_own_window(entry: CatalogueModel) -> None:
    assert entry.licence
    assert entry.licence_url.startswith("https://")
    assert entry.file_name.endswith(".gguf")
    # Prompt and reply of a worker: chunk, note before, note after, instructions and question.
    assert entry.chunk_tokens + 2 * entry.note_tokens + entry.answer_tokens + 512 <= min(entry.window, 8192)
    if isinstance(entry.source, HubFile):
        assert entry.source.repo.count("/") == 1
    else:
        # A package's files carry no checksum of their own that a hub would send.
        assert entry.sha256 is not None
        assert entry.size_exact
