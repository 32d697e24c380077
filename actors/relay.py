"""The relay's HTTP interface, as a remote child sees it."""

import contextlib
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from actors.limits import clip

CALL = 10.0
"""Seconds that a call may take, apart from those it is asked to wait."""


class Taken(msgspec.Struct, kw_only=True):
    """A task that is ours until its lease ends."""

    task_id: str
    lease: str
    until: datetime
    attempt: int = 1


class Unreachable(Exception):
    """The relay did not answer, or not as it should; it may the next time."""


class Declined(Exception):
    """The relay said no; `code` is its word for why, where it gave one."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"answered {answer.status_code}: {clip(answer.text, 300)}")
        self.code = ""
        with contextlib.suppress(Unreachable):
            self.code = str(_read(answer).get("code", ""))


class KeyRefused(Declined):
    """The relay does not know our key."""


class Relay:
    """One relay, spoken to as the child `name`."""

    def __init__(self, base: str, key: str, *, name: str, child_id: str) -> None:
        self.child_id = child_id
        self._children = f"/api/relay/children/{quote(name, safe='')}"
        self._client = httpx.AsyncClient(
            base_url=base, headers={"X-Relay-API-Key": key}, trust_env=False, timeout=CALL
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def take(self, seconds: float, wait: float) -> tuple[Taken, dict[str, Any]] | None:
        """Wait up to `wait` seconds for a task, to hold for `seconds`; None if none came.

        Returns it twice: what we need of it, and all of it.
        """
        body = {"child_id": self.child_id, "seconds": seconds, "wait": wait}
        answer = await self._post(f"{self._children}/take", body, timeout=wait + CALL)
        task = _read(answer).get("task") if answer.status_code != 204 else None
        if task is None:
            return None
        try:
            return msgspec.convert(task, Taken), task
        except msgspec.ValidationError as error:
            raise Unreachable(f"not a task: {error}") from None

    async def extend(self, task: Taken, seconds: float) -> None:
        """Hold the task for longer; raises Declined if it is not ours any more."""
        body = {"task_id": task.task_id, "lease": task.lease, "seconds": seconds}
        await self._post(f"{self._children}/extend", body)

    async def release(self, task: Taken, reason: str) -> None:
        """Give the task back; raises Declined if it is not ours any more."""
        body = {"task_id": task.task_id, "lease": task.lease, "reason": reason}
        await self._post(f"{self._children}/release", body)

    async def call_back(self, task_id: str, status: str, result: Any, lease: str) -> None:
        """Say how a task went; raises Declined if the relay will not have it."""
        body = {"task_id": task_id, "child_id": self.child_id, "status": status, "result": result}
        if lease:
            body["lease"] = lease
        await self._post("/api/relay/callback", body)

    async def _post(self, path: str, body: Any, *, timeout: float = CALL) -> httpx.Response:
        try:
            answer = await self._client.post(
                path,
                content=msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
                timeout=timeout,
            )
        except httpx.HTTPError as error:
            raise Unreachable(str(error) or type(error).__name__) from None
        status = answer.status_code
        if status in (200, 204):
            return answer
        if status in (401, 403):
            raise KeyRefused(answer)
        if status in (408, 425, 429) or not 400 <= status < 500:
            raise Unreachable(f"answered {status}")
        raise Declined(answer)


def _read(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(answer.content)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Unreachable(f"not an object: {clip(answer.text, 80)!r}")
    return found
