"""What providers' errors mean, and when they want to be asked again."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models.faults import UpstreamFault
from actors.models.hints import LONGEST, read_duration, read_hint
from actors.models.trouble import Refused, explain, read_trouble
from actors.models.wording import Discretion

RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}


def openai(
    code: str | None = None, kind: str = "invalid_request_error", message: str = "no"
) -> Any:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def google(code: int, status: str, *details: Any, message: str = "no") -> Any:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def quota(name: str) -> Any:
    kind = "type.googleapis.com/google.rpc.QuotaFailure"
    return {"@type": kind, "violations": [{"quotaMetric": "x", "quotaId": name}]}


def fault(status: int, body: Any, **headers: str) -> UpstreamFault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return explain(read_trouble(body), Discretion(), status=status, headers=named)


DAILY = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")
MINUTE = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
LONG = "This model's maximum context length is 4096 tokens. However, you requested 9999 tokens"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, openai(), "bad_request"),
        (400, openai("context_length_exceeded"), "context_too_long"),
        (400, openai(kind="BadRequestError", message=LONG), "context_too_long"),
        (400, {"error": "the input length exceeds the context length"}, "context_too_long"),
        (400, google(400, "INVALID_ARGUMENT"), "bad_request"),
        (400, google(400, "INVALID_ARGUMENT", BAD_KEY), "unauthorized"),
        (400, google(400, "FAILED_PRECONDITION"), "unauthorized"),
        (
            400,
            google(
                400, "INVALID_ARGUMENT", message="The input token count (9) exceeds the maximum"
            ),
            "context_too_long",
        ),
        (400, {"error": '"x" does not support thinking'}, "bad_request"),
        (400, openai(message="The reasoning_content must be passed back"), "bad_request"),
        (401, openai("invalid_api_key"), "unauthorized"),
        (402, openai(message="Insufficient Balance"), "quota_exhausted"),
        (403, openai("unsupported_country_region_territory"), "unauthorized"),
        (403, google(403, "PERMISSION_DENIED"), "unauthorized"),
        (404, openai("model_not_found"), "model_not_found"),
        (404, {"error": "model 'x' not found"}, "model_not_found"),
        (404, {"detail": "Not Found"}, "model_not_found"),
        (408, openai(), "timeout"),
        (409, openai(), "overloaded"),
        (413, openai(), "context_too_long"),
        (422, openai(), "bad_request"),
        (429, openai("rate_limit_exceeded", "requests"), "rate_limited"),
        (429, openai("insufficient_quota", "insufficient_quota"), "quota_exhausted"),
        (429, openai("credit_balance_exhausted"), "quota_exhausted"),
        (429, google(429, "RESOURCE_EXHAUSTED", MINUTE, RETRY_INFO), "rate_limited"),
        (429, google(429, "RESOURCE_EXHAUSTED", DAILY, RETRY_INFO), "quota_exhausted"),
        (429, [google(429, "RESOURCE_EXHAUSTED", MINUTE)], "rate_limited"),
        (429, None, "rate_limited"),
        (500, openai(kind="server_error"), "server_error"),
        (500, google(500, "INTERNAL"), "server_error"),
        (502, None, "server_error"),
        (503, openai("server_is_overloaded", "server_error"), "overloaded"),
        (503, {"error": "server busy, please try again.  maximum pending"}, "overloaded"),
        (503, google(503, "UNAVAILABLE"), "overloaded"),
        (504, google(504, "DEADLINE_EXCEEDED"), "timeout"),
        (529, openai(kind="overloaded_error"), "overloaded"),
        (418, {"type": "about:blank", "title": "I'm a teapot", "status": 418}, "bad_request"),
        (0, google(503, "UNAVAILABLE"), "overloaded"),
        (0, {"error": {"message": "no", "status": "RESOURCE_EXHAUSTED"}}, "rate_limited"),
        (0, {"error": {"message": "no", "type": "not_found_error"}}, "model_not_found"),
        (0, {"error": {}}, "server_error"),
        (0, {"error": "context window is full"}, "context_too_long"),
    ],
)
def test_every_error_is_one_of_ours(status: int, body: Any, code: str) -> None:
    assert fault(status, body).code == code


def test_a_conflict_that_is_not_to_be_tried_again_is_our_mistake() -> None:
    assert fault(409, openai(), x_should_retry="false").code == "bad_request"


@pytest.mark.parametrize(
    "code", ["content_filter", "content_policy_violation", "data_inspection_failed"]
)
def test_a_policy_is_a_refusal_and_no_fault(code: str) -> None:
    with pytest.raises(Refused) as caught:
        fault(400, openai(code, message="Against our policy"))

    assert caught.value.reason == "Against our policy"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (openai(message="words"), "words"),
        ({"error": "words"}, "words"),
        ({"message": "words"}, "words"),
        ({"code": 4000, "msg": "words"}, "words"),
        ({"title": "words"}, "words"),
        ([{"error": {"message": "words"}}], "words"),
        ({"error": {"message": 5}}, "answered 500"),
        (None, "answered 500"),
    ],
)
def test_the_reason_is_in_the_providers_words(body: Any, reason: str) -> None:
    assert fault(500, body).reason == reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "7"}, 7),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ({"retry_after_ms": "x", "retry_after": "7"}, 7),
        ({"retry_after": "-3"}, 0),
        ({"retry_after": "9e99"}, LONGEST),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({}, None),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "120ms"}, 0.12),
        ({"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "6m0s"}, 360),
        ({"x_ratelimit_remaining_tokens": "5", "x_ratelimit_reset_tokens": "6m0s"}, None),
    ],
)
def test_headers_say_when_to_ask_again(headers: dict[str, str], seconds: float | None) -> None:
    assert fault(429, openai(), **headers).retry_after == seconds


def test_a_date_says_when_to_ask_again() -> None:
    then = datetime.now(UTC) + timedelta(hours=1)

    found = read_hint({"retry-after": format_datetime(then, usegmt=True)})

    assert found is not None
    assert 3500 < found <= 3600


def test_google_says_in_its_details_when_to_ask_again() -> None:
    assert fault(429, google(429, "RESOURCE_EXHAUSTED", MINUTE, RETRY_INFO)).retry_after == 36


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("36s", 36),
        ("1.5s", 1.5),
        ("6m0s", 360),
        ("1h1m1s", 3661),
        ("12ms", 0.012),
        ("999999999999h", LONGEST),
        ("", None),
        ("36", None),
        ("s", None),
        ("1 s", None),
        ("-1s", None),
    ],
)
def test_durations_are_gos(text: str, seconds: float | None) -> None:
    assert read_duration(text) == (None if seconds is None else pytest.approx(seconds))


NAMES = ["error", "code", "message", "type", "status", "details", "violations", "quotaId"]
MORE = ["reason", "retryDelay", "detail", "title", "msg"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*NAMES, *MORE]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.integers(0, 999), JSON, st.dictionaries(st.just("retry-after"), st.text(max_size=10)))
def test_any_body_means_something(status: int, body: Any, headers: dict[str, str]) -> None:
    found = explain(read_trouble(body), Discretion(), status=status, headers=headers)

    assert len(found.reason) < 200
    assert found.reason.isprintable()


@given(st.text(max_size=400), st.text(min_size=8, max_size=40), st.integers(0, 400))
def test_no_secret_passes_wherever_it_stands(text: str, secret: str, place: int) -> None:
    secret = f"k3y{secret}"
    said = Discretion(secret).clean(text[:place] + secret + text[place:])

    assert len(said) < 200
    assert secret not in said
