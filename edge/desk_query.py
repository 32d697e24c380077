"""What agents ask of the board, as it stands in a URL: filters, order, page, all checked."""

from typing import Annotated, Any, get_args

import msgspec
from starlette.requests import Request

from edge.auth import principal_of
from edge.cases import CustomerType, Sort, Status, Wanted
from edge.operation import Parameter
from edge.parameters import read_int
from edge.problem import Refusal, quote

MOST_LISTED = 200
DEEPEST = 100_000
LONGEST = 200
LATEST = 10**12

Limit = Annotated[int, msgspec.Meta(ge=1, le=MOST_LISTED)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=DEEPEST)]

FILTERS = (
    Parameter("status", Status, "Only in this state.", default="all"),
    Parameter("time_start", float, "Only those that began then or later, in seconds since 1970."),
    Parameter("time_end", float, "Only those that began then or earlier."),
    Parameter("agent", str, "`all`, `mine`, `unassigned`, or the id of an agent.", default="all"),
    Parameter(
        "customer_type",
        CustomerType,
        "`old` are those whose metadata has an `order_count` above 0.",
        default="all",
    ),
    Parameter("keyword", str, "In the session's name, the customer's, the last message, …"),
    Parameter("team", str, "Only of this team."),
)
PAGE = (
    Parameter(
        "sort", Sort, "By default who waits comes first, the most urgent of all.", default="default"
    ),
    Parameter("limit", Limit, "How many.", default=50),
    Parameter("offset", Offset, "From which on.", default=0),
)


def read_wanted(request: Request) -> Wanted:
    """Return which cases are wanted. Raises Refusal 400 `invalid_parameter`."""
    agent = read_text(request, "agent") or "all"
    if agent == "mine":
        agent = principal_of(request).agent
        if not agent:
            detail = "'agent' is 'mine', and nobody has logged in; send a token, or an agent's id"
            raise Refusal(400, "invalid_parameter", detail)
    return Wanted(
        status=read_word(request, "status", Status),
        time_start=_read_time(request, "time_start"),
        time_end=_read_time(request, "time_end"),
        agent=agent,
        customer_type=read_word(request, "customer_type", CustomerType),
        keyword=read_text(request, "keyword"),
        team=read_text(request, "team"),
    )


def read_page(request: Request) -> tuple[Sort, int, int]:
    """Return the order, how many are wanted, and from which on. Raises Refusal 400."""
    limit = read_int(request, "limit", default=50, low=1, high=MOST_LISTED)
    offset = read_int(request, "offset", default=0, low=0, high=DEEPEST)
    return read_word(request, "sort", Sort), limit, offset


def read_word(request: Request, name: str, words: Any) -> Any:
    """Return a query parameter that is one of a Literal's words, the first if it is not there."""
    known = get_args(words)
    value = read_text(request, name) or known[0]
    if value not in known:
        raise _invalid(name, value, f"one of {', '.join(known)}")
    return value


def read_text(request: Request, name: str, longest: int = LONGEST) -> str:
    """Return a query parameter, empty if it is not there. Raises Refusal 400."""
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise Refusal(400, "invalid_parameter", f"parameter {name!r} is given more than once")
    value = values[0] if values else ""
    if len(value) > longest:
        raise _invalid(name, value, f"at most {longest} characters")
    return value


def _read_time(request: Request, name: str) -> float | None:
    text = read_text(request, name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= LATEST:
        raise _invalid(name, text, "seconds since 1970")
    return value


def _invalid(name: str, value: str, expected: str) -> Refusal:
    return Refusal(400, "invalid_parameter", f"{name!r} is {quote(value)}, expected {expected}")
