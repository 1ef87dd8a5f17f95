"""--verify and --strict: what is looked up, and the exit code where a quote is not in the text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from coa.errors import VerificationFailed
from coa.types import Citation

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("flags", "verify", "strict"),
    [
        ([], True, False),
        (["--no-verify"], False, False),
        (["--verify", "--strict"], True, True),
        (["--no-strict"], True, False),
    ],
)
def test_flags_become_settings(cli: Cli, flags: list[str], verify: bool, strict: bool) -> None:
    assert cli("ask", "book.txt", "q", *flags).code == 0
    assert cli.api.settings is not None
    assert (cli.api.settings.verify, cli.api.settings.strict) == (verify, strict)


def test_a_failed_verification_prints_the_answer_and_ends_in_8(cli: Cli) -> None:
    answer = cli.answer("She said “no” (not found in the source).", quotes_not_found=1)
    cli.api.outcomes = [VerificationFailed("the answer has a quote that the text does not hold.", answer=answer)]
    result = cli("ask", "book.txt", "q", "--strict", "--json")
    assert result.code == 8
    assert json.loads(result.out)["quotes_not_found"] == 1
    assert "error: the answer has a quote that the text does not hold." in result.err


def test_the_questions_after_a_failed_verification_are_answered_too(cli: Cli) -> None:
    failed = VerificationFailed("the answer has a quote that the text does not hold.", answer=cli.answer("One."))
    cli.api.outcomes = [failed, cli.answer("Two.", read=1)]
    result = cli("ask", "book.txt", "-q", "first", "-q", "second", "--strict")
    assert result.code == 8
    assert result.out.index("One.") < result.out.index("Two.")


def test_a_verification_that_failed_without_an_answer_is_an_error_like_others(cli: Cli) -> None:
    cli.api.outcomes = [VerificationFailed("2 of 3 statements are not in the text.")]
    result = cli("ask", "book.txt", "q")
    assert (result.code, result.out) == (8, "")
    assert "2 of 3 statements" in result.err


def test_citations_that_are_not_verbatim_say_so(cli: Cli) -> None:
    citations = [Citation("It purred.", 30, 40, status=s) for s in ("exact", "normalised", "fuzzy", "moved")]
    cli.api.outcomes = [cli.answer(citations=citations)]
    assert cli("ask", "book.txt", "q").out.splitlines()[2:] == [
        '[1] "It purred." (offset 30-40)',
        '[2] "It purred." (offset 30-40, other typography)',
        '[3] "It purred." (offset 30-40, fuzzy: not word for word)',
        '[4] "It purred." (offset 30-40, moved: not where the answer puts it)',
    ]
