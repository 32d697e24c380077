"""Clients of edges that are killed: one sends tasks, others follow the relay's log.

Each goes to another edge when one fails it, sends again under the same key, and follows on from
the newest event that it has.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx

from runtime.bus import Bus, Stored
from tests.chaos.follower import Heard, heard
from tests.chaos.processes import KEY
from tests.integration.waiting import until

HEADERS = {"X-Relay-API-Key": KEY}
SUBJECT = "event.relay.log"
AGAIN = 0.1
PATIENCE = 8.0
SILENT = 20.0
"""Seconds without even a comment after which a stream is dead."""
LEAVES = 0.02
"""The chance that a follower leaves after an event, to follow on from another edge."""

Json = dict[str, Any]


class Sender:
    """Sends so many tasks, spread over so many seconds; each until it is accepted."""

    def __init__(self, urls: list[str], chance: random.Random) -> None:
        self.accepted: dict[str, str] = {}
        """The id of each task, by the key under which it was sent."""
        self.wrong: list[str] = []
        self.tries = 0
        self._urls = urls
        self._chance = chance

    async def run(self, count: int, seconds: float) -> None:
        """Send them all."""
        async with client() as http, asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._send(http, f"task-{number}"))
                await asyncio.sleep(seconds / count)

    async def _send(self, http: httpx.AsyncClient, key: str) -> None:
        body = {"from": "master", "to": "child", "type": "task", "cmd": "test"}
        # One in ten is sent again although it was accepted.
        for _ in range(2 if self._chance.random() < 0.1 else 1):
            task = await self._until_accepted(http, body, key)
            if self.accepted.setdefault(key, task) != task:
                self.wrong.append(f"{key} became {self.accepted[key]}, then {task}")

    async def _until_accepted(self, http: httpx.AsyncClient, body: Json, key: str) -> str:
        while True:
            url = self._chance.choice(self._urls) + "/api/relay/send"
            self.tries += 1
            with suppress(httpx.HTTPError):
                answer = await http.post(url, json=body, headers={"Idempotency-Key": key})
                if answer.status_code == 200:
                    return str(answer.json()["task_id"])
                if answer.status_code < 500:
                    self.wrong.append(f"{key} was answered {answer.status_code}: {answer.text}")
            await asyncio.sleep(AGAIN)


class LogFollower:
    """Follows the relay's log through one edge after another, by its cursor."""

    def __init__(self, urls: list[str], chance: random.Random) -> None:
        self.transcript: list[Heard] = []
        self.connections = 0
        self.wrong: list[str] = []
        self._last = "it never connected"
        self._urls = urls
        self._chance = chance
        self._task = asyncio.create_task(self._follow())

    @property
    def cursor(self) -> int:
        """The newest event that it has."""
        return self.transcript[-1][0] if self.transcript else 0

    async def stop(self, newest: int) -> None:
        """Wait until it has heard the newest event, then stop; what it misses is told later."""
        with suppress(TimeoutError):
            await until(lambda: self.cursor >= newest or self._task.done(), PATIENCE)
        self._task.cancel()
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            self.wrong.append(f"a follower failed at {self.cursor}: {ended!r}")
        if self.cursor < newest:
            self.wrong.append(f"a follower got to {self.cursor} of {newest}; {self._last}")

    async def _follow(self) -> None:
        async with client() as http:
            while True:
                url = self._chance.choice(self._urls) + "/api/relay/log/events"
                with suppress(httpx.HTTPError):
                    async with http.stream("GET", url, params={"after": self.cursor}) as answer:
                        self.connections += 1
                        self._last = f"at {url} since {datetime.now(UTC):%X}: {answer.status_code}"
                        await self._listen(answer)
                await asyncio.sleep(AGAIN)

    async def _listen(self, answer: httpx.Response) -> None:
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
                continue
            # What has no cursor is about the connection, such as that the edge leaves.
            if "data" in fields and "id" in fields:
                self._take(fields)
                if self._chance.random() < LEAVES:
                    return
            fields = {}

    def _take(self, fields: dict[str, str]) -> None:
        if fields.get("event") == "reset":
            self.wrong.append(f"a hole after {self.cursor}: {fields['data']}")
        seq = int(fields["id"])
        if seq <= self.cursor:
            self.wrong.append(f"{seq} was told after {self.cursor}")
        self.transcript.append(heard(seq, fields["data"].encode()))


class Relayed:
    """One sender and two followers, and what the log holds in the end."""

    def __init__(self, urls: list[str], chance: random.Random) -> None:
        self.sender = Sender(urls, chance)
        self._followers = [LogFollower(urls, chance) for _ in range(2)]
        self._log: list[Stored] = []

    async def stop(self, bus: Bus) -> None:
        """Let the followers hear all that the log holds, then stop them."""
        self._log = await bus.read_all(SUBJECT, after=0)
        newest = self._log[-1].seq if self._log else 0
        for follower in self._followers:
            await follower.stop(newest)

    def count(self) -> dict[str, int]:
        """What was done."""
        return {
            "tasks accepted": len(self.sender.accepted),
            "tries to send a task": self.sender.tries,
            "lines of the relay's log": len(self._log),
            "connections of followers": sum(one.connections for one in self._followers),
        }

    def check(self) -> list[str]:
        """Everything that is wrong, in words."""
        found = check_relay(self._log, self.sender, self._followers)
        return [f"relay: {line}" for line in found]


def client() -> httpx.AsyncClient:
    """A client of edges that uses no proxy of the environment."""
    timeout = httpx.Timeout(PATIENCE, read=SILENT)
    return httpx.AsyncClient(headers=HEADERS, timeout=timeout, trust_env=False)


def check_relay(log: list[Stored], sender: Sender, followers: list[LogFollower]) -> list[str]:
    """Everything that is wrong with relayed tasks, in words: each was sent and ended once."""
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for stored in log:
        data = json.loads(stored.data)["data"]
        told[data["task_id"]][data["event"]] += 1
    wrong = list(sender.wrong)
    once = {"send": 1, "callback": 1}
    for key, task in sender.accepted.items():
        if told.get(task) != once:
            wrong.append(f"{key} was accepted as {task}: the log has {dict(told.get(task, {}))}")
    strangers = told.keys() - set(sender.accepted.values())
    wrong += [f"task {task} was accepted by nobody" for task in strangers]
    wanted = [heard(stored.seq, stored.data) for stored in log]
    for one in followers:
        wrong += one.wrong
        if one.transcript != wanted:
            wrong.append(f"a follower heard {len(one.transcript)} of {len(wanted)}, or otherwise")
    return wrong
