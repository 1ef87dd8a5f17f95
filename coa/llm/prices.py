"""What a token costs and how long a window is, as far as anybody knows: configuration first, then litellm's list.

That list has gaps, and litellm fills them with zeros: a model of which nobody knows the price must come out as
unknown here, never as free.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from types import ModuleType

from coa.llm.budget import Prices
from coa.llm.deployments import Deployment

__all__ = ["listed_window", "prices_of", "remember_price_list"]

# A Router enters what a group's model_info says into litellm's list, for good: another group of the process that
# serves a model of that name would be taken to have its window and prices.
_lists: dict[int, Mapping[str, Mapping[str, object]]] = {}
"""The list as it was imported, by the module's id: there is one in a process, and doubles in tests."""
_remembering = threading.Lock()


def remember_price_list(litellm: ModuleType) -> None:
    """Keeps litellm's list as it was imported; later calls change nothing."""
    with _remembering:  # a second thread would go through it while the first one's model is entered into it already
        if id(litellm) not in _lists:
            _lists[id(litellm)] = {name: dict(entry) for name, entry in litellm.model_cost.items()}


def prices_of(deployment: Deployment, litellm: ModuleType | None) -> Prices | None:
    """Dollars per token; 0 for a local engine without a configured price; None where it is unknown.

    `litellm` may be None while it is not loaded and only configured prices matter.
    """
    configured = deployment.prices
    if configured is not None:
        return configured
    if deployment.local:
        return Prices(0.0, 0.0)
    for entry in _entries(deployment, litellm) if litellm is not None else ():
        prompt, completion = (_number(entry.get(f"{way}_cost_per_token")) for way in ("input", "output"))
        # Zeros in the list stand for gaps far more often than for gifts; a free model can be configured as such.
        if prompt is not None and completion is not None and prompt + completion > 0:
            return Prices(prompt, completion)
    return None


def listed_window(deployment: Deployment, litellm: ModuleType) -> int | None:
    """The window of litellm's list, in tokens; None where it has none."""
    for entry in _entries(deployment, litellm):
        window = _number(entry.get("max_input_tokens"))
        if window is not None and window >= 1:
            return int(window)
    return None


def _entries(deployment: Deployment, litellm: ModuleType) -> Iterator[Mapping[str, object]]:
    """What the list may hold about the deployment, the surest first."""
    if deployment.local:
        return  # a name in the list says nothing of how a local engine serves it
    base = (deployment.info or {}).get("base_model") or (deployment.params or {}).get("base_model")
    names = [str(base)] if base else []
    names += [deployment.model, deployment.served_name]
    remembered = _lists.get(id(litellm))
    listed = getattr(litellm, "model_cost", None) if remembered is None else remembered
    for name in names:
        entry = listed.get(name) if isinstance(listed, Mapping) else None
        if isinstance(entry, Mapping):
            yield entry
    for name in names:
        if remembered is not None and name in litellm.model_cost and name not in remembered:
            continue  # a group's own, entered by a Router
        try:
            found = litellm.get_model_info(model=name)
        except Exception:  # noqa: S112 - it raises plain Exception for a name that it does not know
            continue
        if isinstance(found, Mapping):
            yield found


def _number(value: object) -> float | None:
    """A number that is finite and not negative; None for everything else, text included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < math.inf else None
