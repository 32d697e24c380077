"""A child in a process of its own: what it has done it does not do again, whatever fails."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from actors.child import Remote
from actors.function import Function
from actors.journal import Journal
from actors.master import Master
from actors.relay import KeyRefused, Relay
from actors.remote import TRIES, RemoteChild, main
from runtime.testing import Kit, running
from schemas.relay import TaskCompleted, TaskFailed, TaskReturned, task_topic
from tests.integration.relay_double import KEY, RelayDouble, serving
from tests.integration.tasks import call_back, ends, send, take, task

DONE: list[str] = []
"""The tasks that `work` has done, in order."""


async def work(order: dict[str, Any]) -> Any:
    DONE.append(order["task_id"])
    return {"cmd": order["cmd"], "payload": order.get("payload")}


async def word(order: dict[str, Any]) -> str:
    return "one word"


async def fail(order: dict[str, Any]) -> None:
    raise LookupError("no chart of that user")


async def hang(order: dict[str, Any]) -> None:
    DONE.append(order["task_id"])
    await asyncio.Event().wait()


@pytest.fixture
async def double(tmp_path: Path) -> AsyncIterator[RelayDouble]:
    DONE.clear()
    async with running(master=Master, far=Remote) as kit, serving(kit) as double:
        yield double


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "child_worker_state.json"


@asynccontextmanager
async def child(
    double: RelayDouble, state: Path, name: str = "work", **options: Any
) -> AsyncIterator[RemoteChild]:
    """A child at work. Leaving the block ends it as a power cut would."""
    relay = Relay(double.url, options.pop("key", KEY), name="far", child_id="child_far")
    journal = Journal(state)
    options = {"pause": 0.01, "wait": 0.05, **options}
    child = RemoteChild(relay, journal, Function(f"{__name__}:{name}"), **options)
    running = asyncio.create_task(child.run())
    try:
        yield child
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        journal.close()
        await relay.close()


async def give(double: RelayDouble, task_id: str, **rest: Any) -> None:
    await send(double.kit, task_id, "far", **rest)
    double.ids.append(task_id)


async def completed(kit: Kit, task_id: str) -> TaskCompleted:
    return await kit.event(task_topic(task_id), TaskCompleted)


def stored(state: Path) -> Any:
    return msgspec.json.decode(state.read_bytes()) if state.exists() else {}


async def until_stored(state: Path, task_id: str, status: str) -> None:
    async with asyncio.timeout(10):
        while stored(state).get(task_id, {}).get("status") != status:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.promise("CB-02", "CB-05", "CB-35")
async def test_a_task_is_taken_done_and_called_back(double: RelayDouble, state: Path) -> None:
    async with child(double, state):
        await give(double, "t_1", cmd="verify_chart", payload={"字": 1}, text="你好")
        end = await completed(double.kit, "t_1")
        await until_stored(state, "t_1", "processed")

    callback = double.bodies("callback")[0]
    assert end.result == {"cmd": "verify_chart", "payload": {"字": 1}}
    assert end.child_id == "child_far"
    assert set(callback) == {"task_id", "child_id", "status", "result", "lease"}
    assert DONE == ["t_1"]


async def test_a_result_that_is_no_object_is_put_into_one(double: RelayDouble, state: Path) -> None:
    async with child(double, state, "word"):
        await give(double, "t_1")
        end = await completed(double.kit, "t_1")

    assert end.result == {"value": "one word"}


async def test_a_function_that_raises_fails_its_task(double: RelayDouble, state: Path) -> None:
    async with child(double, state, "fail"):
        await give(double, "t_1")
        failed = await double.kit.event(task_topic("t_1"), TaskFailed)

    assert failed.result == {"error": "no chart of that user"}


async def test_a_function_that_hangs_fails_its_task(double: RelayDouble, state: Path) -> None:
    async with child(double, state, "hang", timeout=0.1):
        await give(double, "t_1")
        failed = await double.kit.event(task_topic("t_1"), TaskFailed)

    assert failed.result == {"error": "no result within 0.1 s"}


@pytest.mark.promise("CB-07")
async def test_a_callback_is_tried_three_times_with_growing_pauses(
    double: RelayDouble, state: Path
) -> None:
    double.refusals["callback"] = [500, 503]
    with capture_logs() as lines:
        async with child(double, state):
            await give(double, "t_1")
            await completed(double.kit, "t_1")
            await until_stored(state, "t_1", "processed")

    pauses = [line["retry_in"] for line in lines if line["event"] == "callback_failed"]
    assert len(double.bodies("callback")) == TRIES == 3
    assert pauses == [0.01, 0.02]
    assert DONE == ["t_1"]


@pytest.mark.promise("CB-05", "CB-06")
async def test_a_task_whose_callback_never_got_through_is_called_back_after_a_restart(
    double: RelayDouble, state: Path
) -> None:
    double.refusals["callback"] = [500] * 1000
    async with child(double, state):
        await give(double, "t_1", cmd="a")
        await double.until("callback", TRIES)
        kept = stored(state)["t_1"]
    double.refusals.clear()
    async with child(double, state):
        end = await completed(double.kit, "t_1")
        await until_stored(state, "t_1", "processed")

    assert (kept["status"], kept["result"]) == ("executed", {"cmd": "a", "payload": None})
    assert end.result == {"cmd": "a", "payload": None}
    assert DONE == ["t_1"]
    assert len(await ends(double.kit, "t_1")) == 1


@pytest.mark.promise("CB-06", "CB-36")
async def test_a_task_that_comes_again_is_not_executed_again(
    double: RelayDouble, state: Path
) -> None:
    double.refusals["callback"] = [500] * TRIES
    await give(double, "t_1")
    async with child(double, state):
        await double.until("callback", TRIES)
    await double.kit.advance(timedelta(minutes=2))
    await double.kit.event(task_topic("t_1"), TaskReturned)
    async with child(double, state):
        await completed(double.kit, "t_1")

    assert DONE == ["t_1"]
    assert len(await ends(double.kit, "t_1")) == 1


@pytest.mark.promise("CB-06")
async def test_an_answer_that_was_lost_does_no_harm(double: RelayDouble, state: Path) -> None:
    double.losses["callback"] = 1
    async with child(double, state):
        await give(double, "t_1")
        await until_stored(state, "t_1", "processed")

    assert len(double.bodies("callback")) == 2
    assert len(await ends(double.kit, "t_1")) == 1


async def test_a_task_the_relay_handed_out_unheard_comes_again(
    double: RelayDouble, state: Path
) -> None:
    double.losses["take"] = 1
    await give(double, "t_1")
    async with child(double, state):
        await double.until("take", 2)
        await double.kit.advance(timedelta(minutes=2))
        await completed(double.kit, "t_1")

    assert DONE == ["t_1"]


@pytest.mark.parametrize("status", ["processed", "refused"])
async def test_a_settled_task_is_given_back_at_once_and_never_done_again(
    double: RelayDouble, state: Path, status: str
) -> None:
    state.write_text(f'{{"t_1": {{"status": "{status}", "ts": "2025-10-22 10:00:00"}}}}')
    with capture_logs() as lines:
        async with child(double, state):
            await give(double, "t_1")
            await give(double, "t_2")
            await completed(double.kit, "t_2")
            failed = await double.kit.event(task_topic("t_1"), TaskFailed)

    assert DONE == ["t_2"]
    assert f"its child has {status} it before" in failed.reason
    assert "task_known" in [line["event"] for line in lines]


async def test_a_task_in_hand_is_kept_by_extending_its_lease(
    double: RelayDouble, state: Path
) -> None:
    async with child(double, state, "hang", seconds=0.06):
        await give(double, "t_1")
        await double.until("extend", 3)
        found = await task(double.kit, "t_1")

    assert found.status == "processing"
    assert {body["lease"] for body in double.bodies("extend")} == {found.lease and found.lease.id}


async def test_a_result_that_came_second_is_put_away(double: RelayDouble, state: Path) -> None:
    double.refusals["callback"] = [500] * TRIES
    async with child(double, state):
        await give(double, "t_1")
        await double.until("callback", TRIES)
    lease = double.bodies("callback")[0]["lease"]
    await call_back(double.kit, "t_1", {"first": True}, child_id="another", lease=lease)
    async with child(double, state):
        await until_stored(state, "t_1", "refused")

    assert DONE == ["t_1"]
    assert (await task(double.kit, "t_1")).result == {"first": True}


async def test_a_result_waits_while_another_child_holds_the_task(
    double: RelayDouble, state: Path
) -> None:
    double.refusals["callback"] = [500] * TRIES
    async with child(double, state):
        await give(double, "t_1")
        await double.until("callback", TRIES)
    await double.kit.advance(timedelta(minutes=2))
    await double.kit.event(task_topic("t_1"), TaskReturned)
    await take(double.kit, "t_1", "another")
    async with child(double, state):
        await double.until("callback", TRIES + 2)
        waiting = stored(state)["t_1"]["status"]
        await double.kit.advance(timedelta(minutes=4))
        end = await completed(double.kit, "t_1")

    assert waiting == "executed"
    assert end.child_id == "child_far"
    assert DONE == ["t_1"]


async def test_a_relay_that_is_away_is_waited_for(double: RelayDouble, state: Path) -> None:
    double.refusals["take"] = [503, 404, 500]
    with capture_logs() as lines:
        async with child(double, state):
            await give(double, "t_1")
            await completed(double.kit, "t_1")

    waits = [line["retry_in"] for line in lines if line["event"] == "take_failed"]
    assert waits == [0.01, 0.02, 0.04]


async def test_a_key_the_relay_does_not_know_ends_the_child(
    double: RelayDouble, tmp_path: Path
) -> None:
    relay, journal = Relay(double.url, "x", name="far", child_id="c"), Journal(tmp_path / "s")
    function = Function(f"{__name__}:work")
    with pytest.raises(KeyRefused, match="answered 401"):
        await RemoteChild(relay, journal, function).run()
    journal.close()
    await relay.close()


async def test_a_child_that_is_told_to_stop_finishes_what_it_has(
    double: RelayDouble, state: Path
) -> None:
    async with child(double, state, wait=30) as kid:
        await give(double, "t_1")
        await completed(double.kit, "t_1")
        kid.stop()
        await until_stored(state, "t_1", "processed")

    assert DONE == ["t_1"]


# -- as a program -----------------------------------------------------------------------------


@pytest.mark.promise("CB-35", "CB-36", "CB-39")
@pytest.mark.parametrize(
    ("option", "child_id"), [("--child-id child_bazi", "child_bazi"), ("", "far-[0-9a-f]{8}")]
)
async def test_the_program_works_from_its_environment_and_ends_on_sigterm(
    double: RelayDouble, tmp_path: Path, option: str, child_id: str
) -> None:
    words = f"-m actors.remote --name far {option} --wait 5 --call actors.commands:run"
    environment = {
        **os.environ,
        "LYNKER_API_BASE": double.url,
        "RELAY_API_KEY": KEY,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *words.split(),
        cwd=tmp_path,
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    await give(double, "t_1", cmd="generate_brief", payload={"topic": "八字"})
    end = await completed(double.kit, "t_1")
    await until_stored(tmp_path / "child_worker_state.json", "t_1", "processed")
    program.send_signal(signal.SIGTERM)
    _, said = await asyncio.wait_for(program.communicate(), 10)

    events = [msgspec.json.decode(line)["event"] for line in said.splitlines()]
    assert re.fullmatch(child_id, end.child_id)
    assert end.result == {"brief": "A brief on 八字."}
    assert program.returncode == 0
    assert events == [
        "child_ready",
        "task_taken",
        "task_executed",
        "task_processed",
        "child_stopped",
    ]
    assert KEY.encode() not in said


@pytest.mark.parametrize(
    ("environment", "words", "problem"),
    [
        ({"RELAY_API_KEY": "k"}, "--call actors.commands:run", "LYNKER_API_BASE is ''"),
        (
            {"LYNKER_API_BASE": "localhost:8008", "RELAY_API_KEY": "k"},
            "--call actors.commands:run",
            "LYNKER_API_BASE is 'localhost:8008', expected the relay",
        ),
        ({"LYNKER_API_BASE": "http://h"}, "--call actors.commands:run", "RELAY_API_KEY is missing"),
        ({"LYNKER_API_BASE": "http://h", "RELAY_API_KEY": "k"}, "--call no:f", "cannot load it"),
    ],
)
async def test_a_program_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    environment: dict[str, str],
    words: str,
    problem: str,
) -> None:
    for name in ("LYNKER_API_BASE", "RELAY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        await main(["--name", "far", *words.split()])

    assert problem in str(end.value)
