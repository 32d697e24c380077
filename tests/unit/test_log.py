"""Log lines: one fact each, on one line, without secrets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
