"""Customers who talk to the bot: how soon they see a first word, and how many are served."""

import argparse
import asyncio
import re
import shutil
import time
from typing import Any

from bench.tellers import STAMP
from bench.town import CHAT, STREAM, Row, Town, in_turn

FIXED = 0.2
"""Seconds that the fake upstream takes until its first piece."""
UPSTREAM = f"timer+stamp+first={FIXED:g}+tokens=10+rate=20"
HASTY = "timer+stamp+tokens=5"
HEALTH = "/api/health"
SLOWEST = 60.0
"""Seconds after which an answer is given up."""


class Answers:
    """What was heard of answers that were asked for."""

    def __init__(self) -> None:
        self.first: list[float] = []
        """Seconds from asking until there was something to read."""
        self.added: list[float] = []
        """Seconds from the upstream's first piece to the client."""
        self.failed = 0

    async def ask(self, town: Town, session: str) -> None:
        """Say something in a session, and listen to all of the answer."""
        began, heard, done = time.monotonic(), 0, False

        def hear(event: dict[str, Any], now: float) -> None:
            nonlocal heard, done
            done = done or (event["type"] == "done" and not event.get("reason"))
            if event["type"] != "answer":
                return
            heard += 1
            if heard == 1:
                self.first.append(now - began)
                if found := STAMP.findall(event["content"].encode()):
                    self.added.append(now - int(found[0]) / 1e9)

        body = {"message": "What time is it?", "user_id": session}
        try:
            async with asyncio.timeout(SLOWEST):
                stream = await town.site.follow(STREAM, hear, body)
                try:
                    await stream.ended
                finally:
                    stream.close()
        except (OSError, TimeoutError):
            done = False
        self.failed += not done


async def health(town: Town, given: argparse.Namespace) -> list[Row]:
    """1,000 requests, 100 at once."""
    program = shutil.which("ab")
    who = "ab" if program else "our own client"
    row = Row(f"GET {HEALTH}, 100 at once, by {who}", "FD-108", [("average", 500.0)])
    if program:
        row.seconds, row.failed = await _run_ab(program, town, given.requests)
    else:
        found = await in_turn((town.site.ask("GET", HEALTH) for _ in range(given.requests)), 100)
        row.seconds = [one.seconds for one in found]
        row.failed = sum(one.status != 200 for one in found)
    return [row]


async def _run_ab(program: str, town: Town, requests: int) -> tuple[list[float], int]:
    """The seconds of each request, and how many failed. Raises RuntimeError if it ends badly."""
    file = town.stack.folder / "ab.tsv"
    # -l: answers may differ in length, as this one does, which says how long it is up.
    how = f"-q -l -n {requests} -c {min(100, requests)} -g {file}".split()
    url = f"http://127.0.0.1:{town.site.port}{HEALTH}"
    running = await asyncio.create_subprocess_exec(
        program, *how, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await running.communicate())[0].decode()
    if running.returncode:
        raise RuntimeError(f"ab ended with {running.returncode}: {said.strip()}")
    # Of its columns the fifth is what a request took, in whole milliseconds.
    seconds = [int(line.split("\t")[4]) / 1000 for line in file.read_text().splitlines()[1:]]
    counts = re.findall(r"^(?:Failed requests|Non-2xx responses): *(\d+)", said, re.M)
    return seconds, sum(map(int, counts)) + requests - len(seconds)


async def feeds(town: Town, given: argparse.Namespace) -> list[Row]:
    """Feeds that are opened at once, for nobody in particular."""
    row = Row(f"GET {STREAM}, {given.feeds} at once, until connected", "FD-109")

    async def follow() -> None:
        began, connected = time.monotonic(), asyncio.Event()

        def hear(event: dict[str, Any], now: float) -> None:
            if event["type"] == "connected":
                row.seconds.append(now - began)
                connected.set()

        try:
            await town.follow(STREAM, hear)
            await asyncio.wait_for(connected.wait(), SLOWEST)
        except (OSError, RuntimeError, TimeoutError):
            row.failed += 1

    await asyncio.gather(*(follow() for _ in range(given.feeds)))
    return [row]


async def answers(town: Town, given: argparse.Namespace) -> list[Row]:
    """As many users as there are, all in one moment, and then spread over two seconds."""
    rows = []
    for spread in (0.0, 2.0):
        heard = Answers()

        async def ask(number: int, wait: float, heard: Answers = heard) -> None:
            await asyncio.sleep(wait)
            await heard.ask(town, f"user{number}")

        for _ in range(given.times):
            waits = (n * spread / given.users for n in range(given.users))
            await asyncio.gather(*(ask(n, wait) for n, wait in enumerate(waits)))
        when = f"within {spread:g} s" if spread else "in one moment"
        who = f"{given.users} users {when}"
        rows += _rows(who, heard)
    return rows


def _rows(who: str, heard: Answers) -> list[Row]:
    first = f"{who}: message to first word (the upstream's {1000 * FIXED:g} ms in it)"
    return [
        Row(first, "FD-111", [("p99", 2000.0)], heard.first, heard.failed),
        Row(f"{who}: upstream's first byte to client", "FD-87", [("p99", 50.0)], heard.added),
    ]


async def crowd(town: Town, given: argparse.Namespace) -> list[Row]:
    """Very many users: each follows their session, and says something once in a while."""
    heard, opened, late = Answers(), Row(f"{given.crowd} feeds opened, 50 at once"), Row("")

    def hear(event: dict[str, Any], now: float) -> None:
        if event["type"] == "answer" and (found := STAMP.findall(event["content"].encode())):
            late.seconds.append(now - int(found[-1]) / 1e9)

    async def follow(number: int) -> None:
        began = time.monotonic()
        try:
            await town.follow(f"{STREAM}?session_name=crowd{number}", hear)
            opened.seconds.append(time.monotonic() - began)
        except (OSError, RuntimeError):
            opened.failed += 1

    await in_turn((follow(number) for number in range(given.crowd)), 50)
    rate = given.crowd / given.every
    asking = []
    for number in range(int(rate * given.seconds)):
        session = f"crowd{number % given.crowd}"
        asking.append(asyncio.create_task(heard.ask(town, session), name=session))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*asking)
    who = f"{given.crowd} users, {rate:.0f} messages/s"
    late.what = f"{who}: a word, from the upstream to their other feed"
    late.promises = "FD-82"
    return [opened, *_rows(who, heard), late]


async def whole(town: Town, given: argparse.Namespace) -> list[Row]:
    """`/api/chat`, with an upstream that answers at once."""
    row = Row(f"POST {CHAT}, {given.chats} at once, upstream at once", "FD-101, FD-102")
    row.aims = [("p50", 200.0), ("p99", 1000.0)]
    until = time.monotonic() + given.seconds

    async def talk(number: int) -> None:
        while time.monotonic() < until:
            body = {"message": "What time is it?", "user_id": f"talker{number}"}
            answered = await town.site.ask("POST", CHAT, body)
            row.seconds.append(answered.seconds)
            row.failed += answered.status != 200
            await asyncio.sleep(given.think)

    await asyncio.gather(*(talk(number) for number in range(given.chats)))
    return [row]
