"""The relay's built-in commands."""

from typing import Any

import pytest

from actors.commands import run


@pytest.mark.promise("CB-14", "CB-21")
@pytest.mark.parametrize(
    ("order", "result"),
    [
        (
            {"cmd": "verify_chart", "payload": {"user_id": "u123"}},
            {"summary": "chart of u123: 1 of 1 fields are filled in", "score": 1.0},
        ),
        (
            {"cmd": "verify_chart", "payload": {"year": 1990, "hour": None, "place": ""}},
            {"summary": "chart of unknown: 1 of 3 fields are filled in", "score": 0.33},
        ),
        (
            {"cmd": "verify_chart"},
            {"summary": "chart of unknown: 0 of 0 fields are filled in", "score": 0.0},
        ),
        ({"cmd": "generate_brief", "payload": {"topic": "八字"}}, {"brief": "A brief on 八字."}),
        ({"cmd": "generate_brief"}, {"brief": "A brief on nothing in particular."}),
        ({"cmd": "test_3", "payload": {"a": [1]}}, {"echo": {"a": [1]}}),
        ({"cmd": "test"}, {"echo": None}),
        ({}, {"echo": None}),
    ],
)
def test_a_command_is_done(order: dict[str, Any], result: dict[str, Any]) -> None:
    assert run(order) == result
