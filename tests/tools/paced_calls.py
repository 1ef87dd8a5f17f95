"""Calls of one process under a rate limit that it shares with others through Redis; prints what became of them.

    python tests/tools/paced_calls.py BASE_URL REDIS_URL --calls 40 --rpm 20 [--window 60]

Start two of them against one `python -m coa.testing.fault_server --rpm 20`: none of their calls is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from coa.cache.connection import connect
from coa.cache.rates import SharedRates
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.litellm_model import LitellmModel
from coa.reading import Prompt


async def run(options: argparse.Namespace) -> dict[str, float]:
    """Answers, attempts and seconds of the calls, all begun at once."""
    plain = Deployment("warm/0", "openai/fault", "hosted", options.warm or options.base_url, "none")
    warm = LitellmModel(ModelGroup("warm", (plain,)))
    await warm.complete(Prompt(tail="Is it warm?"), Decoding(5))  # a first call may take seconds on its way out
    deployment = Deployment(
        "paced/0", "openai/fault", "hosted", options.base_url, "none", params={"rpm": options.rpm, "tpm": options.tpm}
    )
    # A busy test machine is no slow Redis: the limits that matter on the call path are tested elsewhere.
    limiter = SharedRates(connect(options.redis_url, timeout_s=5.0), window_s=options.window, timeout_s=5.0)
    model = LitellmModel(ModelGroup("paced", (deployment,)), limiter=limiter, max_parallel_calls=options.parallel)
    started = time.perf_counter()
    try:
        calls = (model.complete(Prompt(tail=f"Who took key {n}?"), Decoding(20)) for n in range(options.calls))
        replies = await asyncio.gather(*calls)
    finally:
        await model.close()
        await warm.close()
        await limiter.close()
    return {
        "answered": len(replies),
        "attempts": sum(reply.attempts for reply in replies),
        "seconds": round(time.perf_counter() - started, 2),
    }


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url")
    parser.add_argument("redis_url")
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--rpm", type=int, default=20)
    parser.add_argument("--tpm", type=int, default=None)
    parser.add_argument("--warm", metavar="BASE_URL", help="where a first call goes that is not counted")
    parser.add_argument("--window", type=float, default=60.0, metavar="SECONDS")
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
