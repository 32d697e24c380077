"""The counts of the chaos test at the end of every run."""

import logging
from collections.abc import Iterator

import pytest
import structlog

COUNTS = "chaos"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Our own connections are cut all the time: what they say of it would bury the verdict."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(wrapper_class=before)


@pytest.fixture(autouse=True)
def needs_nats_server(nats_server_binary: str) -> None:
    """Nothing here does without."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was done to whom, whether all was well or not."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == COUNTS and report.when == "call":
                    terminalreporter.section(report.nodeid.rpartition("::")[2])
                    terminalreporter.write_line("\n".join(value.outcome.lines()))
