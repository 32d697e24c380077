"""The counts of the chaos test at the end of every run."""

import pytest

COUNTS = "chaos"


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
