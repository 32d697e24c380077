"""Streamed chat completions of one fake upstream: asked directly, through us, through LiteLLM.

Clients come one after the other, and each asks again as soon as its answer has ended.
"""

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.ears import Heard, open_ear
from bench.relay import find_free_port
from bench.stack import Meter, Spent, Stack, stacked, wait_until_served

LASTS = 8.0
"""Seconds of one answer."""
MODEL = "timer"
OURS = """
[edge]
max_connections = 20000
[[actor]]
name = "completion"
type = "actors.session:Session"
lifetime = "1h"
options = {{ batches = "completion-batch", keep = "1d", longest = "45m" }}
[[actor]]
name = "completion-batch"
type = "actors.batch:Batch"
lifetime = "1h"
[[actor]]
name = "{name}"
type = "actors.model:Model"
concurrency = 1000
options = {{ provider = "openai", model = "{asked}", upstreams = [{{ url = "{upstream}" }}] }}
"""
THEIRS = """
model_list:
  - model_name: {name}
    litellm_params:
      model: openai/{asked}
      api_base: {upstream}
      api_key: none
litellm_settings:
  drop_params: true
  telemetry: false
"""
REQUEST = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
)


@dataclass(frozen=True)
class Door:
    """Where an answer is asked for, and what it is called there."""

    port: int
    model: str

    @property
    def request(self) -> bytes:
        """What is sent for one answer."""
        messages = [{"role": "user", "content": "What time is it?"}]
        body = json.dumps({"model": self.model, "stream": True, "messages": messages})
        path = "/v1/chat/completions"
        text = REQUEST.format(path=path, port=self.port, length=len(body), body=body)
        return text.encode()


@dataclass(frozen=True)
class Found:
    """What was heard in so many seconds, and what it cost; refused are those not answered."""

    heard: Heard
    spent: dict[str, Spent]
    refused: int


class Crowd:
    """Clients that ask and listen until they are sent away."""

    def __init__(self, door: Door, clients: int) -> None:
        self.heard = Heard()
        self.refused = 0
        self._door = door
        self._clients = clients
        self._asking: list[asyncio.Task[None]] = []

    async def gather(self) -> None:
        """Let all of them in, spread over the time that an answer lasts, and one more."""
        for number in range(self._clients):
            self._asking.append(asyncio.create_task(self._ask(), name=f"client {number}"))
            await asyncio.sleep(LASTS / self._clients)
        await asyncio.sleep(LASTS / 2)

    async def send_away(self) -> None:
        """End all that they have begun."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        while True:
            try:
                ear = await open_ear(self._door.port, self._door.request, self.heard)
            except OSError:
                self.refused += 1
                await asyncio.sleep(LASTS / 4)
                continue
            try:
                await ear.ended
            finally:
                ear.transport.abort()


async def ask(stack: Stack, door: Door, clients: int, seconds: float) -> Found:
    """Have so many clients listen, and note for a while what they hear."""
    crowd = Crowd(door, clients)
    try:
        await crowd.gather()
        crowd.heard.clear()
        crowd.refused = 0
        meter = Meter(stack)
        await asyncio.sleep(seconds)
        return Found(crowd.heard, meter.read(), crowd.refused)
    finally:
        await crowd.send_away()


async def start_upstream(stack: Stack, rate: float) -> tuple[Door, str]:
    """Start the fake; who asks for its model hears the time, so often in a second."""
    port = find_free_port()
    await stack.start("fake", "-m", "runtime", "fake", "openai", "--port", str(port))
    await wait_until_served(f"http://127.0.0.1:{port}/v1/models")
    model = f"{MODEL}+stamp+tokens={int(rate * LASTS)}+rate={rate:g}"
    return Door(port, model), f"http://127.0.0.1:{port}/v1"


async def ask_directly(clients: int, rate: float, seconds: float, data: Path | None) -> Found:
    """What the fake and the clients take by themselves."""
    async with stacked(data=data) as stack:
        door, _ = await start_upstream(stack, rate)
        return await ask(stack, door, clients, seconds)


async def ask_us(clients: int, rate: float, seconds: float, data: Path | None) -> Found:
    """Through an edge, a session, a batch and a model's worker of ours."""
    async with stacked(data=data) as stack:
        fake, url = await start_upstream(stack, rate)
        config = OURS.format(name=MODEL, asked=fake.model, upstream=url)
        await stack.start_part("host", config)
        port = await stack.start_part("edge", config)
        await wait_until_served(f"http://127.0.0.1:{port}/health")
        await _wait_for_model(port)
        return await ask(stack, Door(port, MODEL), clients, seconds)


async def ask_litellm(
    program: Path, clients: int, rate: float, seconds: float, data: Path | None
) -> Found:
    """Through LiteLLM's proxy with one worker; `program` is its command, in its own venv."""
    async with stacked(data=data) as stack:
        fake, url = await start_upstream(stack, rate)
        config, port = stack.folder / "litellm.yaml", find_free_port()
        config.write_text(THEIRS.format(name=MODEL, asked=fake.model, upstream=url))
        arguments = ("--config", str(config), "--host", "127.0.0.1", "--port", str(port))
        alone = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "PYTHONPATH": ""}
        command = (str(program), *arguments, "--num_workers", "1")
        await stack.start_program("litellm", *command, **alone)
        await wait_until_served(f"http://127.0.0.1:{port}/health/liveliness")
        return await ask(stack, Door(port, MODEL), clients, seconds)


async def _wait_for_model(port: int) -> None:
    """A host has deployed it, and runs it, once one answer has been heard."""
    heard = Heard()
    async with asyncio.timeout(60):
        while not heard.all:
            with contextlib.suppress(OSError):
                ear = await open_ear(port, Door(port, MODEL).request, heard)
                await ear.heard
                ear.transport.abort()
            await asyncio.sleep(0.2)


def find_litellm(given: str) -> Path | None:
    """LiteLLM's command where it was said to be, or beside this Python; None if it is neither."""
    for path in (Path(given) if given else None, Path(sys.executable).with_name("litellm")):
        if path is not None and path.is_file():
            return path.absolute()
    return None
