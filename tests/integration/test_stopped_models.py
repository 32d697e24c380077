"""An operator stops the run of a model: its task ends, and nobody waits for it."""

import asyncio

from actors.batch import Batch
from actors.session import Session
from runtime.testing import running
from tests.integration.answering import MODELS, Talk, gate
from tests.integration.test_commands import callboard


async def test_a_run_that_an_operator_stops_ends_its_task() -> None:
    async with running(session=Session, batch=Batch, **MODELS) as kit:
        talk = Talk(kit, "c1")
        with gate("one"):
            opened = await talk.open("one", "two")
            await talk.speaking(2)
            run = opened.tasks[0].run
            stopped = await asyncio.to_thread(
                callboard, "run", "stop", run, "--reason", "enough", url=kit.server.url
            )
            done = await talk.end(opened)
        ends = await talk.ends()

    assert stopped.returncode == 0, stopped.stderr
    assert done.status == "PARTIAL"
    assert ends["1"].status == "FAILED"
    assert "enough" in ends["1"].reason
    assert ends["2"].status == "SUCCESS"
