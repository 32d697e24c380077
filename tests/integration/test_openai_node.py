"""The official Node SDK of OpenAI against our edge, installed from its registry for the test."""

import asyncio
import base64
import os
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.testing import running
from tests.integration.completing import ACTORS, MODEL, SECRET, asking, refused

NODE = Path(__file__).parents[1] / "node"
INSTALL = ("ci", "--no-audit", "--no-fund", "--ignore-scripts")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, but fails if CI is set."""
    if found := shutil.which(name):
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not on PATH: install Node 20 or newer with npm")
    pytest.skip(f"{name} is not on PATH")


async def run(*words: str, folder: Path, **environ: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, stdout=PIPE, stderr=PIPE, env={**os.environ, **environ}
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()
    return out


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder with the SDK, and the script that drives it."""
    for name in ("package.json", "package-lock.json", "openai.mjs"):
        shutil.copy(NODE / name, tmp_path)
    await run(tool("npm"), *INSTALL, folder=tmp_path)
    return tmp_path


@pytest.mark.timeout(240)
async def test_the_node_sdk_lists_completes_streams_and_fails_as_it_should(folder: Path) -> None:
    async with running(**ACTORS) as kit, asking(kit) as edge:
        told = await run(
            tool("node"),
            "openai.mjs",
            folder=folder,
            BASE_URL=f"{edge.url}/v1",
            API_KEY=SECRET,
            MODEL=MODEL,
            PNG=base64.b64encode(PNG).decode(),
        )
    results: dict[str, Any] = msgspec.json.decode(told)

    assert results == {
        "listed": [True, MODEL],
        "whole": ["hello world ", "stop", 11, True],
        "streamed": ["one two ", "assistant", 11],
        "helped": ["tool_calls", ['{"place":"Kyiv"}', '{"place":"Bern"}']],
        "called": [None, "thanks "],
        "seen": f"image/png  {len(PNG)}\n",
        "broken": ["half ", "APIError", None, "truncated", None],
        "not_found": ["NotFoundError", 404, "model_not_found", "model"],
        "bad": ["BadRequestError", 400, "invalid_field", "temperature"],
        "unauthorized": ["AuthenticationError", 401, "invalid_api_key", None],
        "quota": ["RateLimitError", 429, "insufficient_quota", None],
        "taken": ["ConflictError", 409, "MANUAL_IN_PROGRESS", None],
    }
    assert refused.count("taken") == 1
