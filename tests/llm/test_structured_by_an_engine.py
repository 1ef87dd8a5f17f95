"""A schema that a real engine enforces, a list that its token limit cuts off, and replies that are given again."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from coa.config import Settings
from coa.errors import BadOutput
from coa.llm.chat import Decoding
from coa.llm.gateway import open_gateway
from coa.llm.schemas import shape
from coa.llm.structured import structured
from coa.reading import Prompt
from coa.testing.models import test_model_path as model_path


class Person(BaseModel):
    name: str
    age: int


class People(BaseModel):
    people: list[Person]


PROMPT = Prompt(
    tail="Write down ten people with name and age, such as Ada (36), Bob (41), Cleo (19), Dan (52), Eve (28), "
    f"Finn (33), Gus (64), Hal (71), Ida (45), Jo (22), as JSON in this form:\n{shape(People)}\n"
)


@pytest.mark.slow
async def test_an_engine_keeps_to_the_schema_and_a_cut_off_list_keeps_its_complete_items(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, model=str(model_path()), window=1024, timeout_s=120)
    gateway = await open_gateway(settings)
    try:
        model = await gateway.role_model("retriever")
        assert model.supports_schema
        # A model of this size need not end its list; what it wrote is in form all the same.
        cut = await structured(model, PROMPT, Decoding(max_tokens=60), People)
        assert (cut.how, cut.finish_reason) == ("salvaged", "length")
        assert cut.value.people
        assert cut.lost <= 1
        with pytest.raises(BadOutput) as caught:
            await structured(model, PROMPT, Decoding(max_tokens=6), People, reask=False)
        assert caught.value.usage is not None
        assert caught.value.usage.calls == 1
        again = await structured(model, PROMPT, Decoding(max_tokens=60), People)
        assert again.usage.reused == 0, "a reply that was cut off is never kept"
        assert again.value == cut.value
        one = Prompt(tail=f"Ada is 36 years old. Write her down as JSON in this form:\n{shape(Person)}\n")
        first = await structured(model, one, Decoding(max_tokens=60), Person)
        second = await structured(model, one, Decoding(max_tokens=60), Person)
        assert (first.how, second.how) == ("enforced", "enforced")
        assert first.value == second.value
        assert (first.usage.calls, second.usage.calls, second.usage.reused) == (1, 0, 1)
    finally:
        await gateway.close()
