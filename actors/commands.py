"""The relay's built-in commands, for its demonstration and its tests."""

from collections.abc import Mapping
from typing import Any


def run(order: Mapping[str, Any]) -> Any:
    """Do an order: `verify_chart` and `generate_brief` are known, anything else is echoed.

    Source: the worker of the Conversation Bus, whose clients expect these shapes.
    """
    command = COMMANDS.get(order.get("cmd", ""), echo)
    return command(order.get("payload"))


def verify_chart(payload: Any) -> dict[str, Any]:
    """Look at a chart: how much of what it needs is there."""
    chart = payload if isinstance(payload, Mapping) else {}
    filled = sum(value not in (None, "", [], {}) for value in chart.values())
    score = round(filled / len(chart), 2) if chart else 0.0
    who = chart.get("user_id", "unknown")
    return {
        "summary": f"chart of {who}: {filled} of {len(chart)} fields are filled in",
        "score": score,
    }


def generate_brief(payload: Any) -> dict[str, Any]:
    """Say in one sentence what is to be written about."""
    topic = payload.get("topic") if isinstance(payload, Mapping) else None
    return {"brief": f"A brief on {topic}." if topic else "A brief on nothing in particular."}


def echo(payload: Any) -> dict[str, Any]:
    """Give back what came."""
    return {"echo": payload}


COMMANDS = {"verify_chart": verify_chart, "generate_brief": generate_brief}
