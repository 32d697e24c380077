"""How uvicorn is set up."""

import re
from datetime import timedelta
from typing import Any

import pytest

from edge.limits import Limits
from edge.protocol import GuardedProtocol
from edge.server import serve_config
from tests.unit.lobby import Lobby, get
from tests.unit.serving import Peer, served


def test_nothing_is_left_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    config = serve_config(Lobby().app())

    assert config.workers == 1
    assert not config.proxy_headers


def test_the_protocol_is_ours_with_the_limits_given() -> None:
    limits = Limits(connections=7)
    config = serve_config(Lobby().app(), limits=limits)

    assert isinstance(config.http, type)
    assert issubclass(config.http, GuardedProtocol)
    assert config.http.limits == limits
    assert GuardedProtocol.limits == Limits()


def test_an_answer_does_not_say_what_serves_it() -> None:
    with served(Lobby().app()) as port, Peer(port) as peer:
        answer = peer.ask(get())

    assert answer.status == 200
    assert "server" not in answer.headers
    assert "date" in answer.headers


def test_a_faulty_name_is_refused_before_anything_is_served() -> None:
    with pytest.raises(ValueError, match=re.escape("hosts: 'http://x' is not a host name")):
        serve_config(Lobby().app(), hosts=["http://x"])


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"headers": 0}, "limits: headers must be more than 0, not 0"),
        ({"linger": timedelta(0)}, "limits: linger must be more than 0, not"),
        ({"body_rate": -1}, "limits: body_rate must be more than 0, not -1"),
    ],
)
def test_a_limit_that_lets_nothing_through_is_refused(
    limits: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Limits(**limits)


def test_no_more_connections_are_accepted_than_files_can_be_open() -> None:
    resource = pytest.importorskip("resource")
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        config = serve_config(Lobby().app(), limits=Limits(connections=2000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))

    assert isinstance(config.http, type)
    assert issubclass(config.http, GuardedProtocol)
    assert config.http.limits.connections == 896
