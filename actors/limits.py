"""How large what a task carries may be: together it must fit into its master's state."""

from typing import Any

import msgspec

from runtime.errors import Reject
from schemas.envelope import encode
from schemas.ownership import Customer
from schemas.relay import Order

ORDER_LIMIT = 48 * 1024
RESULT_LIMIT = 64 * 1024
DEPTH_LIMIT = 64
CUSTOMER_LIMIT = 2 * 1024
NAME_LIMIT = 200
REASON_LIMIT = 500


def check_name(what: str, name: str) -> None:
    """Raises Reject if a name is longer than what is kept of names."""
    if len(name) > NAME_LIMIT:
        raise Reject(
            f"{what}_too_long",
            f"{what} has {len(name)} characters, at most {NAME_LIMIT}: {clip(name, 40)!r}",
            status=422,
        )


def check_order(order: Order) -> None:
    """Raises Reject if an order is more than a task can keep, or names no such priority."""
    names = {"from": order.sender, "to": order.to, "type": order.kind, "cmd": order.cmd}
    for what, name in names.items():
        check_name(what, name)
    if order.priority not in (0, 1, 2):
        raise Reject("bad_priority", f"priority {order.priority!r}: expected 0, 1 or 2", status=422)
    _check("payload", order.payload)
    if (size := len(encode(order))) > ORDER_LIMIT:
        raise Reject("order_too_large", f"{size} bytes, at most {ORDER_LIMIT}", status=413)


def check_result(result: Any) -> None:
    """Raises Reject if a result, as decoded from JSON, is more than a task can keep."""
    _check("result", result)
    if (size := len(encode(result))) > RESULT_LIMIT:
        raise Reject("result_too_large", f"{size} bytes, at most {RESULT_LIMIT}", status=413)


def check_customer(customer: Customer) -> None:
    """Raises Reject if more is known of a customer than a session can keep and tell."""
    _check("customer", customer.metadata)
    if (size := len(encode(customer))) > CUSTOMER_LIMIT:
        detail = f"what is known of the customer takes {size} bytes, at most {CUSTOMER_LIMIT}"
        raise Reject("customer_too_large", detail, status=413)


def as_json(value: Any) -> Any:
    """What others will see of a value that a command returned, once it is JSON.

    Raises Reject if it cannot be JSON, or is too large or too deep for a result.
    """
    try:
        seen = msgspec.json.decode(encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        detail = f"a result must be a JSON value, not {clip(repr(type(value)), 80)}: {error}"
        raise Reject("result_not_json", detail, status=422) from None
    check_result(seen)
    return seen


def clip(text: str, limit: int = REASON_LIMIT) -> str:
    """A text, cut where it is longer than `limit`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _check(what: str, value: Any) -> None:
    # The state that a value goes into is deeper than the message it came in: what could just
    # be read here might not be readable there.
    level = _nested([value])
    for _ in range(DEPTH_LIMIT):
        if not level:
            return
        level = [part for each in level for part in _nested(each)]
    if level:
        raise Reject(
            f"{what}_too_deep", f"{what} is nested deeper than {DEPTH_LIMIT} levels", status=422
        )


def _nested(value: Any) -> list[Any]:
    parts = value.values() if isinstance(value, dict) else value
    return [part for part in parts if isinstance(part, dict | list)]
