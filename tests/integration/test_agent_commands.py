"""Accounts of agents as an operator makes them at a terminal."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from runtime.accounts import Accounts
from runtime.passwords import Passwords
from runtime.testing import Kit, running
from tests.integration.agents import PASSWORD
from tests.integration.command import PATIENCE, ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running() as kit:
        yield kit


def command(
    kit: Kit, *words: str, typed: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runtime", "agents", *words, "--nats", kit.server.url],
        cwd=ROOT,
        env={**os.environ, **environ},
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


async def test_the_first_admin_is_made_with_a_password_from_the_input(kit: Kit) -> None:
    made = command(kit, "add", "root", "--role", "admin", "--team", "t1", typed=f"{PASSWORD}\n")
    account = await Accounts(kit.bus).find("root")

    assert (made.returncode, made.stdout) == (0, "root may log in, as admin\n")
    assert account is not None
    assert (account.role, account.teams) == ("admin", ("t1",))
    assert await Passwords().verify(PASSWORD, account.secret)


async def test_an_account_is_listed_disabled_and_given_another_password(kit: Kit) -> None:
    command(kit, "add", "ann", "--name", "Ann", "--password-env", "SECRET", SECRET=PASSWORD)
    first = await Accounts(kit.bus).find("ann")
    listed = command(kit, "list", "--json").stdout
    table = command(kit, "list").stdout
    disabled = command(kit, "disable", "ann")
    enabled = command(kit, "enable", "ann")
    changed = command(kit, "password", "ann", typed="another-1\n")
    last = await Accounts(kit.bus).find("ann")

    assert {msgspec.json.decode(line)["id"] for line in listed.splitlines()} == {"ann", "root"}
    assert "argon2" not in listed + table
    assert [done.returncode for done in (disabled, enabled, changed)] == [0, 0, 0]
    assert first is not None
    assert last is not None
    assert last.generation > first.generation
    assert not last.disabled


@pytest.mark.parametrize(
    ("words", "typed", "said"),
    [
        (("add", "root"), PASSWORD, "there is an agent 'root' already"),
        (("add", "Bad Name"), PASSWORD, "'Bad Name' cannot be an agent's id"),
        (("add", "eve"), "short", "the password has 5 characters, expected 8 or more"),
        (("add", "eve", "--password-env", "NOT_SET"), "", "the variable 'NOT_SET' is not set"),
        (("disable", "eve"), "", "there is no agent 'eve'"),
        (("password", "eve"), PASSWORD, "there is no agent 'eve'"),
    ],
)
async def test_what_cannot_be_done_is_one_line_without_the_password(
    kit: Kit, words: tuple[str, ...], typed: str, said: str
) -> None:
    done = command(kit, *words, typed=typed)

    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert PASSWORD not in done.stderr
