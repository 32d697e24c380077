"""Which Host headers are ours."""

import pytest

from edge.hosts import Hosts, read_host
from edge.problem import Refusal


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"localhost", "localhost"),
        (b"LocalHost.:8000", "localhost"),
        (b"[::1]:80", "::1"),
        (b"[0:0:0::1]", "::1"),
        (b"[::ffff:10.0.0.1]", "10.0.0.1"),
        (b"edge_1:", "edge_1"),
    ],
)
def test_a_host_is_read_in_one_spelling(value: bytes, host: str) -> None:
    assert read_host(value) == host


@pytest.mark.parametrize(
    "value",
    [b"", b".", b"a/b", b"a?b", b"a b", b"me@a", b"a:b", b"a:1:2", b"a,b", b"::1", b"[a", b"\xff"],
)
def test_what_is_not_a_host_is_refused(value: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        read_host(value)

    assert (refusal.value.status, refusal.value.code) == (400, "invalid_host")


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("chat.example", True),
        ("fd00::1", True),
        ("chat.example.evil", False),
        ("10.1.2.4", False),
        ("127.1", False),
        ("localhost.evil", False),
    ],
)
def test_loopback_the_address_itself_and_configured_names_are_served(
    host: str, served: bool
) -> None:
    hosts = Hosts(["Chat.Example.", "[FD00::1]"])

    assert hosts.serves(host, "10.1.2.3") is served


def test_a_star_serves_every_name() -> None:
    assert Hosts(["*"]).serves("evil.example", None)


@pytest.mark.parametrize("name", ["", "https://a", "a:80", "a/b", "*.example", "a b", "[::1]:80"])
def test_a_name_that_no_request_can_have_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ValueError, match="expected one without port or scheme"):
        Hosts([name])
