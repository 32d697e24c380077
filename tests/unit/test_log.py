"""Log lines: one fact each, on one line, without secrets."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime import log
from runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]

SCRIPT = """
import logging, sys
from runtime.log import configure, get_logger, mask
configure(format=sys.argv[1], level="info")
mask("s3cret-value")
log = get_logger().bind(actor="master/t_1")
log.info("message_settled", seq=7, outcome="applied")
log.debug("not_shown")
forged = "a\\nb\\x1b[31m"
log.warning("odd", api_key="abc", text="it is s3cret-value!", forged=forged, long="x" * 9000)
logging.getLogger("uvicorn").warning("from a library")
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("failed", exc_info=error)
"""


def run(format: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, format], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stderr


LIBRARIES = """
import logging, sys
from runtime.log import configure
configure(format="json", level="info")
logging.getLogger("a").warning("%d things", "no number")
logging.getLogger("b").log(35, "between two levels")
logging.getLogger("c").setLevel(logging.INFO)
logging.getLogger("c").info("chatter")
logging.getLogger("d").error("nothing went wrong", exc_info=True)
"""

GONE = """
import sys
from runtime.log import configure, get_logger
sys.stderr = open(sys.argv[2], "w")
configure(format=sys.argv[1], level="info")
get_logger().info("nobody_can_read_this", long="x" * 1000)
print("went on", flush=True)
sys.stderr = sys.__stderr__
"""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> str:
    """A value that is masked for the time of one test."""
    monkeypatch.setattr(log, "_secrets", set())
    monkeypatch.setattr(log, "_secret", None)
    log.mask("hunter2.hunter2")
    return "hunter2.hunter2"


def cleaned(**fields: Any) -> dict[str, Any]:
    return dict(log.clean(None, "info", fields))


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_json_lines_are_one_object_each() -> None:
    lines = [json.loads(line) for line in run("json").splitlines()]

    assert [line["event"] for line in lines] == [
        "message_settled",
        "odd",
        "from a library",
        "failed",
    ]
    assert lines[0]["actor"] == "master/t_1"
    assert lines[0]["seq"] == 7
    assert "ZeroDivisionError" in lines[3]["exception"]


@pytest.mark.parametrize("format", ["json", "console"])
def test_secrets_and_control_characters_never_reach_a_line(format: str) -> None:
    text = run(format)
    odd = next(line for line in text.splitlines() if "odd" in line)

    assert "s3cret-value" not in text
    assert "abc" not in odd
    assert "\x1b" not in text
    assert "x" * 3000 not in text
    assert "not_shown" not in text


def test_a_traceback_keeps_its_lines_but_none_of_them_passes_for_a_log_line() -> None:
    script = """if True:
        from runtime.log import configure, get_logger
        configure(format="console")
        try:
            raise ValueError("first\\n2026-11-21T00:00:00Z [info     ] forged \\x1b[31m")
        except ValueError:
            get_logger().exception("failed")
    """
    command = [sys.executable, "-c", script]
    lines = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stderr.splitlines()

    assert "failed" in lines[0]
    assert any("forged" in line for line in lines[1:])
    assert all(line.startswith("    ") for line in lines[1:])
    assert "\x1b" not in "".join(lines)


def test_what_libraries_log_at_warning_joins_in_whatever_they_get_wrong() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]

    assert [(line["library"], line["level"]) for line in lines] == [
        ("a", "warning"),
        ("b", "warning"),
        ("d", "error"),
    ]
    assert "no number" in lines[0]["event"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("format", ["json", "console"])
def test_a_log_that_cannot_be_written_stops_nobody(format: str) -> None:
    command = [sys.executable, "-c", GONE, format, "/dev/full"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.stdout == "went on\n"


@pytest.mark.parametrize(
    "name",
    ["secret", "RELAY_TOKEN", "X-Relay-API-Key", "password", "Authorization", "Set-Cookie"],
)
def test_a_field_named_like_a_secret_is_masked_at_any_depth(name: str) -> None:
    shown = cleaned(request={"headers": [{name: "abc"}]}, **{name: b"abc"})

    assert shown == {"request": {"headers": [{name: "***"}]}, name: "***"}


def test_how_many_tokens_a_model_used_is_no_secret() -> None:
    assert cleaned(tokens=55, token="abc") == {"tokens": 55, "token": "***"}


def test_a_registered_value_is_masked_wherever_it_is(registered: str) -> None:
    shown = cleaned(
        event=f"refused {registered}!",
        items=[{registered: (registered,)}],
        error=ValueError(registered),
        raw=registered.encode(),
        exception=f"Traceback\nValueError: {registered}",
    )

    assert registered not in repr(shown)
    assert shown["event"] == "refused ***!"
    assert shown["items"] == [{"***": ["***"]}]


def test_the_longer_of_two_secrets_leaves_nothing_standing(registered: str) -> None:
    log.mask(registered + "-and-more")

    assert cleaned(a=registered + "-and-more") == {"a": "***"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\r\nb", "a\\r\\nb"),
        ("\u2028\x1b[2J\x00", "\\u2028\\x1b[2J\\x00"),
        ("\ud800", "\\ud800"),
        (["a\nb"], ["a\\nb"]),
        ({"a\nb": 1}, {"a\\nb": 1}),
        ("命令 🦊 مرحبا", "命令 🦊 مرحبا"),
        (2**80, 2**80),
        (Unshowable(), "<a Unshowable that cannot be shown>"),
        (ValueError("a\nb"), "ValueError('a\\nb')"),
    ],
)
def test_any_value_becomes_something_that_fits_a_line(value: Any, shown: Any) -> None:
    assert cleaned(value=value) == {"value": shown}


def test_what_is_endless_is_cut() -> None:
    loop: list[Any] = []
    loop.append(loop)
    shown = cleaned(loop=loop, many=range(10**6), items=list(range(10**5)), long="x" * 10**6)

    assert len(json.dumps(shown)) < 4000


def test_a_long_traceback_keeps_its_end() -> None:
    trace = cleaned(exception="first\n" + "line\n" * 10**5 + "ValueError: the point")["exception"]

    assert trace.endswith("ValueError: the point")
    assert len(trace) < 10_000


def test_a_level_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'loud', expected one of debug, info"):
        log.configure(level="loud")
