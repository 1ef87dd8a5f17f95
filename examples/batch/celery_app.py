"""A batch on Celery workers that you run already.

    pip install celery 'coa-orchestrator'
    export COA_HOME=/shared/coa COA_REDIS_URL=redis://redis:6379/0
    coa batch run /shared/books --task ask -q "Who inherits the estate?" --out /shared/out
    celery -A examples.batch.celery_app worker --concurrency 4
    celery -A examples.batch.celery_app call coa.shift --args '["/shared/out"]' # once for each that is to help

Not a task for each document: a broker over Redis gives a task to a second worker when it has not ended within
`visibility_timeout` (an hour by default), and a long book takes longer. A task here is a shift: it leases documents
from the batch's own ledger for a while, gives back what is not done, and queues the next shift. Chunks that were
read stay read, so the end of a shift costs nothing; neither does a shift that is run twice.
"""

from __future__ import annotations

import asyncio
import os
import threading

from celery import Celery  # type: ignore[import-not-found, import-untyped, unused-ignore]

from coa.api import StopSignal
from coa.batch.worker import join_batch
from coa.config import load_settings

SHIFT_S = 1200.0

app = Celery("coa_batch", broker=os.environ.get("CELERY_BROKER_URL") or os.environ["COA_REDIS_URL"])
app.conf.update(
    task_acks_late=True,  # a worker that dies leaves its shift in the queue
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": 3 * SHIFT_S},
)


@app.task(name="coa.shift", ignore_result=True)  # type: ignore[misc, untyped-decorator, unused-ignore]
def shift(batch: str) -> None:
    """Works on the batch for `SHIFT_S` seconds; queues the next shift while anything is open."""
    stop = StopSignal()
    bell = threading.Timer(SHIFT_S, stop.request, ["end of the shift"])
    bell.daemon = True
    bell.start()
    try:
        end = asyncio.run(join_batch(batch, load_settings().settings, stop=stop))
    finally:
        bell.cancel()
    if end.error is not None:
        raise end.error
    if end.ending == "stopped":
        shift.delay(batch)
