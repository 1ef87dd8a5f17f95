"""litellm's list of prices as it was imported."""

from __future__ import annotations

import threading
from types import ModuleType

from coa.llm.prices import remember_price_list


class _Slow(dict[str, dict[str, object]]):
    """Goes on when it is let."""

    def __init__(self) -> None:
        super().__init__({"a": {}, "b": {}})
        self.times = 0
        self.begun, self.go = threading.Event(), threading.Event()

    def items(self):  # type: ignore[no-untyped-def]
        self.times += 1
        for item in super().items():
            self.begun.set()
            assert self.go.wait(10)
            yield item


def test_a_list_that_is_being_remembered_is_not_yet_changed_by_others() -> None:
    litellm = ModuleType("litellm")
    prices = litellm.model_cost = _Slow()  # type: ignore[attr-defined]

    def load_and_enter() -> None:
        remember_price_list(litellm)
        prices["mine"] = {}

    threads = [threading.Thread(target=load_and_enter) for _ in range(2)]
    threads[0].start()
    assert prices.begun.wait(10)
    threads[1].start()
    threads[1].join(0.05)
    assert threads[1].is_alive()
    prices.go.set()
    for thread in threads:
        thread.join(10)
    assert "mine" in prices
    assert prices.times == 1
