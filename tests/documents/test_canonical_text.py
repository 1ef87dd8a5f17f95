"""The canonical form."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.documents import canonical, read_document
from coa.errors import DocumentEmpty

# Surrogates included, and what the form is about made likely.
ANY_TEXT = st.text(
    alphabet=st.one_of(
        st.characters(),
        st.sampled_from("\r\n\0\ufeff\u200b\u00ad\u2028\u0085\x0c\x1b\ud800\udfffe\u0301\u0323\u1e69각"),
    )
)


@given(ANY_TEXT)
def test_canonical_is_idempotent(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once


@given(ANY_TEXT)
def test_canonical_holds_no_nul_no_cr_no_surrogate_and_is_nfc(text: str) -> None:
    form = canonical(text)
    assert not set(form) & set("\0\r\ufeff\x85\u2028")
    assert unicodedata.is_normalized("NFC", form)
    form.encode()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("a\u2028b\x0cc", "a\nb\nc"),
        ("e\u0301", "é"),
        ("Eigen\u00adtum", "Eigentum"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\ud83d", "\ufffd"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_canonical_form_of(text: str, form: str) -> None:
    assert canonical(text) == form


@given(st.text(min_size=1))
def test_a_document_holds_the_canonical_form_of_its_file(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    try:
        document = read_document(text.encode(), encoding="utf-8")
    except DocumentEmpty:
        assert not canonical(text).strip()
    except Exception as exc:  # a text may happen to be HTML or begin like a ZIP archive
        assert "looks like" in str(exc)  # noqa: PT017
    else:
        assert document.text == canonical(text.removeprefix("\ufeff"))
