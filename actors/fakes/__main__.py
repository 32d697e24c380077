"""`python -m actors.fakes`."""

import argparse
import asyncio
import sys

from actors.fakes.arguments import add_arguments
from actors.fakes.command import serve
from runtime.errors import ConfigError


def main() -> int:
    """Read the arguments and serve; 0 stopped, 1 could not, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="actors.fakes", description="A fake upstream.")
    add_arguments(parser)
    try:
        return asyncio.run(serve(parser.parse_args()))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"actors.fakes: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
