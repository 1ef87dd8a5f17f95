"""Judges of answers: a language model, or an NLI model, behind small protocols.

A judge is a second opinion with faults of its own: it is never the only score, its model's name stands in the report,
and each of its replies is kept with the others. A model should not judge its own answers.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from coa.errors import BadOutput, ConfigError
from coa.llm.chat import ChatModel, Decoding
from coa.reading import Prompt, harmless

__all__ = ["Classify", "ModelJudge", "NliJudge", "load_nli"]

_SYSTEM = "You judge texts. Reply with one word: yes or no."
_ENTAILS = (
    "Text:\n{premise}\n\nStatement: {hypothesis}\n\n"
    "Does the text alone say that the statement is true? Reply with one word, yes or no."
)
_AGREES = (
    "Question: {question}\n\nRight answers, any of which will do:\n{answers}\n\nAnswer to be judged: {reply}\n\n"
    "Does the answer to be judged say the same as one of the right answers? Words may differ, facts may not. "
    "Reply with one word, yes or no."
)
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_VERDICT_TOKENS = 16


class ModelJudge:
    """A chat model that says yes or no; an `Entailment`."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """The model's."""
        return f"judge {self._model.name}"

    async def entails(self, premise: str, hypothesis: str) -> bool:
        """See `Entailment`. Raises: BadOutput for a reply that says neither, ModelError."""
        return await self._says(_ENTAILS.format(premise=harmless(premise), hypothesis=harmless(hypothesis)))

    async def agrees(self, question: str, answers: Sequence[str], reply: str) -> bool:
        """Whether `reply` says the same as one of `answers`. Raises: as `entails`."""
        listed = "\n".join(f"- {harmless(answer)}" for answer in answers)
        return await self._says(_AGREES.format(question=harmless(question), answers=listed, reply=harmless(reply)))

    async def _says(self, tail: str) -> bool:
        completion = await self._model.complete(Prompt(tail=tail, system=_SYSTEM), Decoding(_VERDICT_TOKENS))
        match = _YES_NO.search(completion.text)
        if match is None:
            raise BadOutput(f"the judge said neither yes nor no: {completion.text[:80]!r}.")
        return match[1].lower() == "yes"


Classify = Callable[[Sequence[Mapping[str, str]]], Sequence[Mapping[str, Any]]]
"""Labels of pairs `{"text": premise, "text_pair": hypothesis}`: a transformers text-classification pipeline is one."""


class NliJudge:
    """A natural language inference model; an `Entailment`."""

    def __init__(self, classify: Classify, *, name: str) -> None:
        self._classify = classify
        self._name = name

    @property
    def name(self) -> str:
        """As given."""
        return f"nli {self._name}"

    async def entails(self, premise: str, hypothesis: str) -> bool:
        """See `Entailment`; true where the model's first label is entailment."""
        pair = {"text": premise, "text_pair": hypothesis}
        (found,) = await asyncio.to_thread(self._classify, [pair])
        return str(found["label"]).lower() in {"entailment", "entails", "label_entailment"}


def load_nli(model: str) -> NliJudge:
    """A pipeline of Hugging Face transformers over a model's name or folder (L-CiteEval's is a DeBERTa NLI).

    Raises: ConfigError where transformers is not installed, or the model's labels name no entailment.
    """
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            "an NLI judge needs transformers, which is not installed.", hint="pip install transformers torch"
        ) from error
    pipeline = transformers.pipeline("text-classification", model=model, truncation=True)
    labels = [str(label) for label in pipeline.model.config.id2label.values()]
    if not any("entail" in label.lower() for label in labels):
        raise ConfigError(f"{model}: its labels are {json.dumps(labels)}; none is entailment.")
    return NliJudge(pipeline, name=model)
