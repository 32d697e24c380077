"""The relay's routes for remote children, over a socket, in front of a real master.

It can fail when told to: before it has done what it was asked, or right after.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from runtime.errors import Refused
from runtime.testing import Kit
from schemas.relay import CallBack, Extend, GiveBack, Take
from tests.integration.receiver import Delivery, read
from tests.integration.tasks import master

KEY = "a-key-of-the-tests"
Answer = tuple[int, Any]


class RelayDouble:
    """Answers over HTTP. `ids` are the tasks it knows; `came` is what was asked of it."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.port = 0
        self.ids: list[str] = []
        self.came: list[tuple[str, Any]] = []
        self.stirred = asyncio.Event()
        self.refusals: dict[str, list[int]] = defaultdict(list)
        """Statuses to answer with, by the last part of the path, instead of doing anything."""
        self.losses: dict[str, int] = defaultdict(int)
        """How many answers get lost after all was done."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, what: str) -> list[Any]:
        """Every body that came for one part of the interface."""
        return [body for name, body in self.came if name == what]

    async def until(self, what: str, count: int) -> None:
        """Wait until it was asked for something so many times."""
        async with asyncio.timeout(10):
            while len(self.bodies(what)) < count:
                self.stirred.clear()
                await self.stirred.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            came = await read(reader)
            what = came.line.split()[1].rpartition("/")[2]
            self.came.append((what, came.json))
            self.stirred.set()
            status, body = await self._answer(what, came)
            if self.losses[what]:
                self.losses[what] -= 1
                writer.transport.abort()
                return
            data = b"" if status == 204 else msgspec.json.encode(body)
            head = (
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + data)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, what: str, came: Delivery) -> Answer:
        if came.headers.get("x-relay-api-key") != KEY:
            return 401, error("Unauthorized", "unauthorized")
        if self.refusals[what]:
            status = self.refusals[what].pop(0)
            return status, error("as the test says", "told_to")
        try:
            if what == "take":
                return await self._take(came.json)
            to = master(came.json["task_id"])
            if what == "extend":
                await self.kit.ask(to, msgspec.convert(came.json, Extend))
            elif what == "release":
                await self.kit.ask(to, msgspec.convert(came.json, GiveBack))
            else:
                await self.kit.ask(to, msgspec.convert(came.json, CallBack))
        except Refused as refused:
            return refused.refusal.status, error(refused.refusal.detail, refused.refusal.code)
        return 200, {"status": "ok"}

    async def _take(self, body: Any) -> Answer:
        for task_id in self.ids:
            task = (await self.kit.state(master(task_id))).tasks.get(task_id)
            if task is not None and task.status == "pending":
                message = Take(
                    task_id=task_id,
                    child_id=body["child_id"],
                    run=task.run,
                    seconds=body["seconds"],
                )
                leased = await self.kit.ask(master(task_id), message)
                order = task.order
                given = {
                    "task_id": task_id,
                    "lease": leased.lease,
                    "until": leased.until,
                    "attempt": leased.attempt,
                    "from": order.sender,
                    "to": order.to,
                    "type": order.kind,
                    "cmd": order.cmd,
                    "payload": order.payload,
                    "text": order.text,
                }
                return 200, {"status": "ok", "task": given}
        await asyncio.sleep(min(body["wait"], 0.02))
        return 204, None


def error(text: str, code: str) -> dict[str, str]:
    return {"status": "error", "msg": text, "code": code}


@asynccontextmanager
async def serving(kit: Kit) -> AsyncIterator[RelayDouble]:
    """Serve on a free port of the loopback address."""
    double = RelayDouble(kit)
    server = await asyncio.start_server(double.serve, "127.0.0.1", 0)
    double.port = server.sockets[0].getsockname()[1]
    try:
        yield double
    finally:
        server.close()
        await server.wait_closed()
