"""The commands for accounts of human agents: the first of them is made here, on the machine.

A password comes from a variable or from the standard input, never from the command line.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Callable

import msgspec

from runtime.accounts import Accounts, with_password
from runtime.audit import record_action
from runtime.errors import NotPossible
from runtime.open import opened
from runtime.passwords import Passwords, check_password
from runtime.tables import Config
from runtime.terminal.shown import align, harmless
from schemas.account import ACCOUNT_ID, CAPACITY, MOST_OPEN, WANTED_ID, Account
from schemas.ownership import SUPPORT

replace = msgspec.structs.replace


async def add(config: Config, given: argparse.Namespace) -> int:
    """Make an account."""
    if not ACCOUNT_ID.fullmatch(given.id):
        raise NotPossible(f"{given.id!r} cannot be an agent's id; expected {WANTED_ID}")
    password = _read_password(given.password_env)
    async with opened(config) as bus:
        accounts = Accounts(bus)
        if await accounts.find(given.id):
            raise NotPossible(
                f"there is an agent {given.id!r} already; see `callboard agents list`"
            )
        account = Account(
            id=given.id,
            secret=await Passwords().hash(password),
            name=given.name or given.id,
            role=given.role,
            teams=tuple(given.team) or (SUPPORT,),
            skills=tuple(given.skill),
            capacity=given.capacity,
        )
        await record_action(bus, "agents.add", given.id, given.role)
        if await accounts.add(account) is None:
            raise NotPossible(f"somebody else has just made an agent {given.id!r}")
    print(f"{given.id} may log in, as {given.role}")
    return 0


async def list_all(config: Config, given: argparse.Namespace) -> int:
    """Print all accounts, without what proves them."""
    async with opened(config) as bus:
        found = await Accounts(bus).all()
    if given.json:
        for one in found:
            shown = {k: v for k, v in msgspec.structs.asdict(one).items() if k != "secret"}
            print(msgspec.json.encode(shown).decode())
        return 0
    head = ("ID", "NAME", "ROLE", "TEAMS", "SKILLS", "CAPACITY", "")
    print("\n".join(align([head, *map(_row, found)])))
    return 0


def _row(one: Account) -> tuple[str, ...]:
    teams, skills = ",".join(one.teams), ",".join(one.skills)
    state = "disabled" if one.disabled else ""
    cells = (one.id, one.name, one.role, teams, skills, str(one.capacity), state)
    return tuple(harmless(cell, lines=False) for cell in cells)


async def disable(config: Config, given: argparse.Namespace) -> int:
    """Let an agent log in no more; whoever is logged in as them is not any more."""
    await _change(config, given.id, "agents.disable", lambda a: replace(a, disabled=True))
    print(f"{given.id} may not log in any more, and is logged out everywhere")
    return 0


async def enable(config: Config, given: argparse.Namespace) -> int:
    """Let an agent who was disabled log in again."""

    def change(account: Account) -> Account:
        # What was issued before stays worthless.
        return replace(account, disabled=False, generation=account.generation + 1)

    await _change(config, given.id, "agents.enable", change)
    print(f"{given.id} may log in again")
    return 0


async def password(config: Config, given: argparse.Namespace) -> int:
    """Give an agent another password, and log them out everywhere."""
    secret = await Passwords().hash(_read_password(given.password_env))
    await _change(config, given.id, "agents.password", lambda a: with_password(a, secret))
    print(f"{given.id} has another password, and is logged out everywhere")
    return 0


async def _change(
    config: Config, id: str, action: str, change: Callable[[Account], Account]
) -> None:
    async with opened(config) as bus:
        accounts = Accounts(bus)
        if ACCOUNT_ID.fullmatch(id) and await accounts.find(id):
            await record_action(bus, action, id)
            if await accounts.change(id, change):
                return
        raise NotPossible(f"there is no agent {id!r}; see `callboard agents list`")


def _read_password(variable: str) -> str:
    """The password; raises NotPossible for one that is not taken, and does not show it."""
    if variable:
        found = os.environ.get(variable)
        if found is None:
            raise NotPossible(f"--password-env: the variable {variable!r} is not set")
    elif sys.stdin.isatty():
        found = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != found:
            raise NotPossible("the two passwords differ; nothing was changed")
    else:
        found = sys.stdin.readline().rstrip("\r\n")
    try:
        check_password(found)
    except ValueError as fault:
        raise NotPossible(f"{fault}; nothing was changed") from None
    return found


# -- arguments ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `agents add` takes."""
    password_arguments(parser)
    parser.add_argument("--name", default="", help="as customers and colleagues see it")
    parser.add_argument("--role", choices=("agent", "lead", "admin"), default="agent")
    parser.add_argument("--team", action="append", default=[], help=f"{SUPPORT} unless given")
    parser.add_argument("--skill", action="append", default=[], help="may be given several times")
    parser.add_argument(
        "--capacity", type=_capacity, default=CAPACITY, metavar="N", help="sessions at a time"
    )


def password_arguments(parser: argparse.ArgumentParser) -> None:
    """What `agents password` takes."""
    id_arguments(parser)
    parser.add_argument(
        "--password-env",
        metavar="VARIABLE",
        default="",
        help="the variable that holds the password; else it is read from the standard input",
    )


def id_arguments(parser: argparse.ArgumentParser) -> None:
    """What `agents disable` takes."""
    parser.add_argument("id", help="what the agent logs in with")


def list_arguments(parser: argparse.ArgumentParser) -> None:
    """What `agents list` takes."""
    parser.add_argument("--json", action="store_true", help="a line of JSON for each")


def _capacity(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= MOST_OPEN):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to {MOST_OPEN}")
    return int(text)
