"""`python -m runtime` is the command `callboard`."""

from runtime.cli import main

main()
