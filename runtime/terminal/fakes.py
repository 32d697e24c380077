"""`callboard fake`: an upstream for demonstrations, which the package of actors holds."""

import argparse
import importlib
from typing import Any

from runtime.errors import ConfigError
from runtime.tables import Config

ARGUMENTS = "actors.fakes.arguments"
PROGRAM = "actors.fakes.command"


def fake_arguments(parser: argparse.ArgumentParser) -> None:
    """What the fakes say can be said to them."""
    _loaded(ARGUMENTS).add_arguments(parser)


async def fake(config: Config, given: argparse.Namespace) -> int:
    """Serve a fake upstream until stopped. Raises ConfigError for a port that is in use."""
    try:
        return int(await _loaded(PROGRAM).serve(given))
    except OSError as error:
        raise ConfigError(f"--port {given.port}: {error.strerror}") from None


def _loaded(module: str) -> Any:
    return importlib.import_module(module)
