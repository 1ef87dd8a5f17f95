"""A worker's refusal must not wipe out what earlier workers found."""

from __future__ import annotations

import pytest

from coa.agents.collapse import is_refusal


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "  \n",
        "NO_INFORMATION",
        "NO_INFORMATION.",
        "no information",
        "**NO_INFORMATION**",
        "New notes: NO_INFORMATION",
        "[7]",
        "The text does not mention the will.",
        "The text doesn't say who wrote it.",
        "This part does not contain any information about the key.",
        "The passage does not provide an answer to the question.",
        "The will is not mentioned in this part.",
        "The answer is not explicitly stated in the text. It cannot be determined.",
        "There is no mention of the lighthouse.",
        "There is no information about Ada in this chapter.",
        "No relevant information.",
        "I cannot answer the question from the given text.",
        "I don't know.",
        "It is impossible to determine who took the ring.",
        "Nothing new about the ring.",
        "The question is unanswerable.",
        "None of the sentences mentions the key.",
        "None of these 12 passages is relevant.",
        "Das Testament wird in diesem Teil nicht erwähnt.",
        "Der Text enthält keine Information über Ada.",
        "Le testament n’est pas mentionné dans ce texte.",
        "Il n'y a aucune information sur Ada.",
        "El texto no menciona el testamento.",
        "文中没有提到遗嘱。",
        "无法确定。",
        "原文未提及此人。",
    ],
)
def test_a_reply_that_says_only_that_there_is_nothing_is_a_refusal(reply: str) -> None:
    assert is_refusal(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "Ada leaves for Rome in 1851 [3.7].",
        "The will is not mentioned here, but Ada leaves for Rome.",
        "The text does not say why. Ada leaves for Rome.",
        "Ada leaves for Rome. NO_INFORMATION",
        "Das Testament wird nicht erwähnt, aber Ada reist nach Rom.",
        "文中没有提到遗嘱。王小明去了罗马。",
        "文中没有提到遗嘱，但王小明离开家乡去了罗马。",
        "Le testament n'est pas mentionné ; Ada part pour Rome.",
        "Ada does not know who her father is.",
        "Ahab did not say where he would sail.",
        "None of the sailors would tell where the harpoon lay.",
        "Queequeg could not find the harpoon.",
        "The captain did not answer the letter of his wife.",
        "She was not clear of the harbour before noon.",
        "Yes.",
        "42",
        "王小明",
    ],
)
def test_a_reply_with_anything_in_it_is_a_note(reply: str) -> None:
    assert not is_refusal(reply)
