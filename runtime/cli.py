"""The command `callboard`: reads its arguments, and hands over to what does the work."""

import argparse
import asyncio
import importlib
import os
import re
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from runtime.config import load, unused_environment
from runtime.errors import ConfigError, DataMissing, RuntimeFault
from runtime.log import configure, get_logger
from runtime.store.server import PortTaken
from runtime.tables import MOST_HOSTS, Config
from runtime.terminal import (
    agents,
    approvals,
    commands,
    fakes,
    operations,
    rollout,
    rules,
    workbench,
)
from runtime.terminal.shown import harmless
from runtime.terminal.supervisor import EX_CONFIG, EX_TEMPFAIL

DEFAULT = Path(__file__).parent.parent / "config" / "local.toml"

EX_PIPE = 141
EX_DATAERR = 65
LAST_CURSOR = 2**63 - 1
RUNNING = ("up", "host", "edge", "fake")
"""The commands that run until they are stopped."""

EXIT_CODES = {ConfigError: EX_CONFIG, PortTaken: EX_TEMPFAIL, DataMissing: EX_DATAERR}
"""Of what went wrong; of anything else it is 1."""

Command = Callable[[Config, argparse.Namespace], Coroutine[Any, Any, int]]


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit.

    0 done, 1 failed, 2 wrong arguments, 65 acknowledged data is missing, 75 an address in use,
    78 bad configuration, 141 nobody reads what is printed.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    # What somebody says may be in letters that a terminal has not.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        config = load(given.config, os.environ)
        if given.nats:
            config = commands.with_url(config, given.nats)
        configure(format=config.log.format, level=_level(config, given))
        _say_what_is_unused(given)
        return _loop(given.command(config, given))
    except RuntimeFault as error:
        for line in str(error).splitlines():
            print(f"callboard: {harmless(line)}", file=sys.stderr)
        return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has had enough; what is left to print must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_PIPE


def _loop(work: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where there is one."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return int(runner.run(work))


def _level(config: Config, given: argparse.Namespace) -> str:
    """What a command has to say of its failures is one line, and not a log besides."""
    return config.log.level if given.name in RUNNING or config.log.level == "debug" else "error"


def _say_what_is_unused(given: argparse.Namespace) -> None:
    names = unused_environment(os.environ)
    if names and given.name == "up":
        get_logger().info("environment_unused", variables=names, why="NATS keeps the state")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="callboard", description="Run conversations between people, models and programs."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, default=DEFAULT, help="a TOML file")
    common.add_argument("--nats", metavar="URL", default="", help="a server of your own")
    kinds = parser.add_subparsers(required=True, metavar="command")
    groups = {"": kinds}
    for name, command, text in COMMANDS:
        group, _, word = name.rpartition(" ")
        if group not in groups:
            about = kinds.add_parser(group, help=GROUPS[group], description=GROUPS[group])
            groups[group] = about.add_subparsers(required=True, metavar="command")
        sub = groups[group].add_parser(word, parents=[common], help=text, description=text)
        sub.set_defaults(command=command, name=name)
        if extra := ARGUMENTS.get(name):
            extra(sub)
    return parser


def _up_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hosts", type=_count, default=0, metavar="N", help="so many host processes"
    )
    _accept_argument(parser)


def _count(text: str) -> int:
    if not (re.fullmatch("[0-9]{1,3}", text) and 1 <= int(text) <= MOST_HOSTS):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to {MOST_HOSTS}")
    return int(text)


def _actors_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", nargs="?", default="", help="actor/key, for one key closely")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _accept_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept-data-loss",
        action="store_true",
        help="go on with what is left of a store that lacks what it had acknowledged",
    )


def _tail_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", nargs="?", default="", help="kind/id; all topics by default")
    parser.add_argument("--after", type=_cursor, default=None, help="begin after this cursor")
    parser.add_argument("--jsonl", action="store_true", help="the stored envelopes, a line each")
    parser.add_argument("--once", action="store_true", help="end at the end of the log")


def _cursor(text: str) -> int:
    if not (re.fullmatch("[0-9]{1,19}", text) and int(text) <= LAST_CURSOR):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a cursor from 0 to {LAST_CURSOR}")
    return int(text)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", help="kind/id, for example relay/log")
    parser.add_argument("--to", type=Path, required=True, help="the folder of the archive")


GROUPS = {
    "agents": "Accounts of human agents: make them, list them, shut them.",
    "dead": "Look through dead letters, and settle them.",
    "approvals": "Look at questions that wait for a person, and answer them.",
    "run": "Look at the run of a job, or stop it.",
    "rules": "Look at the rules by which a person is called.",
}
"""What the first word of commands of two words is about."""
COMMANDS: list[tuple[str, Command, str]] = [
    ("up", commands.up, "Run everything: the embedded server, hosts and the edge."),
    ("host", commands.host, "Run deployed actors on a server that is there."),
    ("edge", commands.edge, "Serve HTTP on a server that is there."),
    ("deploy", rollout.deploy, "Add, change and remove actors while everything runs."),
    ("actors", commands.actors, "Show what is deployed, what waits, and who runs it."),
    ("tail", commands.tail, "Print events as they happen."),
    ("export", commands.export, "Append a topic's events to daily files, from where it ended."),
    ("pause", operations.pause, "Let what is sent to a key, or to a whole type, wait."),
    ("resume", operations.resume, "Let a key, or a type, go on."),
    ("skip", operations.skip, "Make the first message that waits for a key a dead letter."),
    ("kill", operations.kill, "End an instance: it starts afresh, without what waits for it."),
    ("run show", operations.show_run, "Show where it stands."),
    ("run stop", operations.stop_run, "Stop it, and tell its sender."),
    ("approvals list", approvals.list_questions, "List the questions that wait for a person."),
    ("approvals show", approvals.show_question, "Show one of them whole, and what it came to."),
    ("approvals approve", approvals.approve, "Answer yes."),
    ("approvals deny", approvals.deny, "Answer no."),
    ("approvals answer", approvals.give_answer, "Answer with what is asked for."),
    ("dead list", workbench.list_letters, "List the messages that nobody could handle."),
    ("dead show", workbench.show_letter, "Show one of them with what it says."),
    ("dead replay", workbench.replay_letters, "Send their messages again, each once."),
    ("dead edit", workbench.edit_letter, "Change the message of one, and send it."),
    ("dead discard", workbench.discard_letters, "Settle them without sending anything."),
    ("agents add", agents.add, "Make an account; the password comes from the standard input."),
    ("agents list", agents.list_all, "List the accounts."),
    ("agents disable", agents.disable, "Log an agent out everywhere, and let them in no more."),
    ("agents enable", agents.enable, "Let an agent in again."),
    ("agents password", agents.password, "Give an agent another password."),
    ("rules try", rules.try_rules, "See what rules would have done in what is recorded."),
    ("doctor", commands.doctor, "Say in plain words what works and what survives what."),
    ("fake", fakes.fake, "Serve a fake upstream of models, for demonstrations and tests."),
]
ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "up": _up_arguments,
    "actors": _actors_arguments,
    "doctor": _accept_argument,
    "deploy": rollout.deploy_arguments,
    "fake": fakes.fake_arguments,
    "tail": _tail_arguments,
    "export": _export_arguments,
    "pause": operations.pause_arguments,
    "resume": operations.resume_arguments,
    "skip": operations.skip_arguments,
    "kill": operations.kill_arguments,
    "run show": operations.show_run_arguments,
    "run stop": operations.stop_run_arguments,
    "approvals list": approvals.list_arguments,
    "approvals show": approvals.show_arguments,
    "approvals approve": approvals.approve_arguments,
    "approvals deny": approvals.deny_arguments,
    "approvals answer": approvals.answer_arguments,
    "rules try": rules.try_arguments,
    "dead list": workbench.list_arguments,
    "dead show": workbench.show_arguments,
    "dead replay": workbench.replay_arguments,
    "dead edit": workbench.edit_arguments,
    "dead discard": workbench.discard_arguments,
    "agents add": agents.add_arguments,
    "agents list": agents.list_arguments,
    "agents disable": agents.id_arguments,
    "agents enable": agents.id_arguments,
    "agents password": agents.password_arguments,
}
