"""Agents at a desk, as clients of an edge: their accounts, their tokens, what they ask."""

from typing import Any

import httpx
from argon2 import PasswordHasher

from runtime.passwords import Passwords
from tests.integration.edges import PATIENCE, Edge

PASSWORD = "right-horse-7"
ADMIN_KEY = "an-admins-own-key-4711"
LIGHT = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def lighten(edge: Edge) -> None:
    """Have an edge make hashes that cost little: what they are worth is not what is tested."""
    edge.shared.agents.passwords = Passwords(LIGHT)


async def call(
    edge: Edge, method: str, path: str, body: Any = None, *, token: str = "", **headers: str
) -> httpx.Response:
    """Ask an edge with a token, or without anything."""
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        return await client.request(method, edge.url + path, json=body, headers=headers)


async def make_agent(edge: Edge, username: str, role: str = "agent", **more: Any) -> None:
    body = {"username": username, "password": PASSWORD, "role": role, **more}
    answer = await call(edge, "POST", "/api/agent/accounts", body, token=ADMIN_KEY)
    assert answer.status_code == 200, answer.text


async def log_in(edge: Edge, username: str, password: str = PASSWORD) -> dict[str, Any]:
    body = {"username": username, "password": password}
    answer = await call(edge, "POST", "/api/agent/login", body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
