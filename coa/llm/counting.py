"""Which counter of tokens serves the deployments of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from coa.errors import ConfigError
from coa.llm.deployments import Deployment
from coa.llm.engine_tokens import PROBE, EngineTokens, Tokenizing
from coa.llm.served import Served
from coa.llm.token_counters import AnyOfTokens, LargerTokens, LocalTokens
from coa.tokens import EstimatedTokens, TokenCounter

__all__ = ["counter_for"]

_SERVER, _ESTIMATE = "server", "estimate"


def counter_for(
    deployments: Sequence[Deployment], served: Mapping[str, Served], *, verify: bool | str = True
) -> TokenCounter:
    """The counter whose counts hold for every deployment; blocking, since it may load a tokenizer.

    Servers that tokenize alike stand in for each other; where tokenizers differ the larger count holds. A local
    engine that is down is taken to have the tokenizer of its neighbours. Raises: ConfigError for a tokenizer that
    cannot be had.
    """
    alike: dict[object, list[TokenCounter]] = {}
    down = False
    for deployment in deployments:
        found = served[deployment.id]
        named = deployment.tokenizer
        if named is not None and named not in (_SERVER, _ESTIMATE):
            local = LocalTokens(named)
            alike.setdefault(tuple(local.tokens(["".join(PROBE)])[0]), []).insert(0, local)
        elif found.fingerprint is not None and named != _ESTIMATE:
            alike.setdefault(found.fingerprint, []).append(_of_server(deployment, found, verify))
        elif named == _SERVER and found.answers:
            raise ConfigError(
                f"{deployment.id} has no /tokenize that answers.",
                hint="Name its tokenizer.json as `tokenizer` in model_info, or leave it out for an estimate.",
            )
        elif deployment.local and not found.answers and named is None:
            down = True
        else:
            alike.setdefault(_ESTIMATE, []).append(EstimatedTokens())
    if down and not alike:
        return EstimatedTokens()
    counters = [same[0] if len(same) == 1 or key == _ESTIMATE else _any_of(same) for key, same in alike.items()]
    return counters[0] if len(counters) == 1 else LargerTokens(counters)


def _any_of(same: Sequence[TokenCounter]) -> TokenCounter:
    """A local tokenizer needs no stand-in."""
    return same[0] if isinstance(same[0], LocalTokens) else AnyOfTokens(same)


def _of_server(deployment: Deployment, found: Served, verify: bool | str) -> EngineTokens:
    return EngineTokens(
        deployment.root_url or "",
        deployment.api_key or "",
        deployment.served_name,
        kind=cast("Tokenizing", found.kind),
        model=deployment.served_name,
        verify=verify,
    )
