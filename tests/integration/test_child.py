"""Children on this host: functions and programs, whatever they do."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from actors.child import Child
from actors.function import MOST_THREADS, Function
from actors.limits import RESULT_LIMIT
from actors.master import Master
from actors.process import Process, ProcessOptions, ProgramFailed, hide_secrets
from runtime.actor import read_options
from runtime.errors import ConfigError, Reject, Retry
from runtime.testing import running
from schemas.deployment import Deployment
from schemas.relay import TaskCompleted, task_topic
from tests.integration.tasks import CALLABLE, ends, send

ORDER: dict[str, Any] = {"task_id": "t_1", "attempt": 1, "cmd": "test", "payload": {"字": 1}}


# -- functions --------------------------------------------------------------------------------


def whole_order(order: dict[str, Any]) -> dict[str, Any]:
    return {"order": order, "thread": threading.current_thread() is threading.main_thread()}


async def slow_answer(order: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"slowly": order["cmd"]}


def second_time_lucky(order: dict[str, Any]) -> int:
    if order["attempt"] == 1:
        raise LookupError("not yet")
    return int(order["attempt"])


def never(order: dict[str, Any]) -> None:
    raise Reject("no_chart", "there is no chart of that user")


def leave(order: dict[str, Any]) -> None:
    sys.exit(3)


async def leave_slowly(order: dict[str, Any]) -> None:
    sys.exit(3)


def stop_iteration(order: dict[str, Any]) -> None:
    raise StopIteration


def oversized(order: dict[str, Any]) -> str:
    return "x" * RESULT_LIMIT


def endless(order: dict[str, Any]) -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def not_json(order: dict[str, Any]) -> object:
    return object()


async def outcome(name: str, **deployed: Any) -> tuple[Any, Any]:
    """How a task of a function of this file ends: its result, or why it failed."""
    options = {"kind": "callable", "call": f"{__name__}:{name}"}
    child = Deployment(
        name="child", type="actors.child:Child", kind="worker", options=options, **deployed
    )
    async with running(master=Master, child=(Child, child)) as kit:
        await send(kit, "t_1", "child", cmd="verify_chart", text="你好")
        await kit.settled()
        (end,) = await ends(kit, "t_1")
        return (end.result, "") if isinstance(end, TaskCompleted) else (None, end.reason)  # type: ignore[attr-defined]  # a TaskFailed


async def test_a_function_gets_the_whole_order_in_a_thread() -> None:
    result, _ = await outcome("whole_order")

    run = result["order"].pop("run")
    assert len(run) == 32
    assert result == {
        "thread": False,
        "order": {
            "task_id": "t_1",
            "attempt": 1,
            "from": "master",
            "to": "child",
            "type": "task",
            "cmd": "verify_chart",
            "payload": None,
            "text": "你好",
        },
    }


async def test_a_coroutine_is_awaited() -> None:
    assert await outcome("slow_answer") == ({"slowly": "verify_chart"}, "")


async def test_a_function_that_raises_is_tried_again() -> None:
    assert await outcome("second_time_lucky") == (2, "")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("never", "no_chart: there is no chart of that user"),
        ("oversized", "result_too_large: 65538 bytes, at most 65536"),
        ("endless", "result_not_json: a result must be a JSON value"),
        ("not_json", "result_not_json: a result must be a JSON value"),
        ("leave", f"{__name__}:leave raised SystemExit(3)"),
        ("leave_slowly", f"{__name__}:leave_slowly called exit(3)"),
        ("stop_iteration", f"{__name__}:stop_iteration raised StopIteration()"),
    ],
)
async def test_whatever_a_function_does_only_its_own_task_fails(name: str, reason: str) -> None:
    _, found = await outcome(name, attempts=1)

    assert found.startswith(reason)


async def test_functions_that_hang_are_not_added_to_without_end() -> None:
    release = threading.Event()
    hanging = Function("actors.commands:run")
    hanging._function = lambda order: release.wait(10)
    calls = [asyncio.create_task(hanging.do(ORDER)) for _ in range(MOST_THREADS)]
    await asyncio.sleep(0)
    with pytest.raises(Retry, match="64 earlier calls have not ended yet"):
        await hanging.do(ORDER)
    release.set()

    assert await asyncio.gather(*calls) == [True] * MOST_THREADS


@pytest.mark.promise("CB-08")
async def test_many_tasks_at_once_are_each_done_once() -> None:
    async with running(master=Master, child=(Child, CALLABLE)) as kit:
        ids = [f"t_{number}" for number in range(60)]
        await asyncio.gather(*(send(kit, each, "child", payload=each) for each in ids))
        await kit.settled(timeout=20)
        found = [await ends(kit, each) for each in ids]

    assert [[end.result for end in each] for each in found] == [[{"echo": each}] for each in ids]  # type: ignore[attr-defined]  # all completed


# -- programs ---------------------------------------------------------------------------------


def program(code: str, **options: Any) -> Process:
    return Process(
        ProcessOptions(argv=(sys.executable, "-c", code), **{"timeout": "10s", **options})
    )


async def failure(attempt: Awaitable[Any]) -> Exception:
    with pytest.raises((Reject, ProgramFailed, TimeoutError)) as raised:
        await attempt
    return raised.value


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_a_program_gets_the_order_and_its_output_is_the_result() -> None:
    options = {
        "kind": "subprocess",
        "argv": [sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.read())"],
    }
    async with running(master=Master, child=(Child, options)) as kit:
        await send(kit, "t_1", "child", cmd="test", payload={"字": [1, None]})
        completed = await kit.event(task_topic("t_1"), TaskCompleted)

    assert completed.result["payload"] == {"字": [1, None]}
    assert (completed.result["from"], completed.result["attempt"]) == ("master", 1)


async def test_a_program_need_not_read_its_order_nor_say_anything() -> None:
    large = {**ORDER, "payload": "x" * 500_000}

    assert await program("pass").do(large) is None


async def test_a_program_sees_no_variable_but_those_it_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RELAY_API_KEY", "lynker")
    monkeypatch.setenv("CHARTS", "/charts")
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    seen = await program(code, env=("CHARTS", "MISSING")).do(ORDER)

    assert seen["CHARTS"] == "/charts"
    assert "RELAY_API_KEY" not in seen
    assert "MISSING" not in seen


async def test_a_program_that_fails_is_quoted_without_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHART_TOKEN", "hush-hush")
    words = (
        "first line\\nlogin hush-hush failed: api_key=abc123, Authorization: Bearer xyz "
        + "x" * 999
    )
    code = f"import sys; sys.stderr.write('{words}\\n\\n'); sys.exit(4)"
    error = await failure(program(code, env=("CHART_TOKEN",)).do(ORDER))

    assert isinstance(error, ProgramFailed)
    assert "ended with exit code 4: login *** failed: api_key=*** Authorization: ***" in str(error)
    assert len(str(error)) < 400
    assert not any(secret in str(error) for secret in ("hush", "abc123", "xyz", "first"))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("password: p", "password: ***"),
        ('{"client_secret": "s3"}', '{"client_secret": ***'),
        ("GET http://u:p@host/", "GET http://***@host/"),
        ("sent Basic dTpw there", "sent Basic *** there"),
        ("the keyboard is missing", "the keyboard is missing"),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(line: str, shown: str) -> None:
    assert hide_secrets(line, {"PATH": "/bin:/usr/bin"}) == shown


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('x' * 100_000)", "result_too_large"),
        ("while True: print('x' * 1000)", "result_too_large"),
        ("print('OK')", "output_not_json"),
        ("print('[' * 50_000)", "output_not_json"),
        ("import sys; sys.stdout.buffer.write(bytes([255, 254]))", "output_not_json"),
    ],
)
async def test_an_output_that_cannot_be_used_is_refused(code: str, expected: str) -> None:
    error = await failure(program(code).do(ORDER))

    assert isinstance(error, Reject)
    assert error.refusal.code == expected


async def test_a_program_that_was_killed_says_so() -> None:
    error = await failure(program("import os; os.kill(os.getpid(), 9)").do(ORDER))

    assert str(error).endswith("was killed by signal 9")


FAMILY = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({path!r}).write_text(f"{{child.pid}}")
time.sleep(60)
"""


async def test_a_program_that_takes_too_long_ends_with_all_it_has_started(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    error = await failure(program(FAMILY.format(path=str(told)), timeout="1s").do(ORDER))
    grandchild = int(told.read_text())

    assert str(error).endswith("gave no result within 1s")
    await gone(grandchild)


async def test_a_program_ends_when_its_attempt_is_cancelled(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    attempt = asyncio.create_task(program(FAMILY.format(path=str(told))).do(ORDER))
    await until(lambda: told.exists() and told.read_text() != "")
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt

    await gone(int(told.read_text()))


async def gone(pid: int) -> None:
    """Wait until a process is no more."""
    try:
        await until(lambda: not is_alive(pid))
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what the kernel tells nobody about."""
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# -- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "missing required field `kind`"),
        ({"kind": "magic"}, "Invalid value 'magic'"),
        ({"kind": "callable"}, "missing required field `call`"),
        ({"kind": "callable", "call": "nowhere:run"}, "No module named 'nowhere'"),
        ({"kind": "callable", "call": "actors.commands"}, "cannot load it"),
        ({"kind": "callable", "call": "actors.commands:COMMANDS"}, "is not a function"),
        ({"kind": "subprocess", "argv": []}, "expected a program"),
        ({"kind": "subprocess", "argv": ["a\0b"]}, "expected a program"),
        ({"kind": "subprocess", "argv": ["true"], "timeout": "0s"}, "not a duration"),
        ({"kind": "subprocess", "argv": ["true"], "shell": True}, "unknown field `shell`"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        read_options(Child, "kid", options)

    assert 'actor "kid"' in str(refused.value)


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no program 'no-such-program'"):
        Process(ProcessOptions(argv=("no-such-program",)))
