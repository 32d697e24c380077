"""Which URLs and addresses a webhook may be of."""

import asyncio

import pytest

from actors.outside import NotAllowedError, check_url, is_public, resolve

INNER = [
    "http://127.0.0.1",
    "http://localhost",
    "http://LOCALHOST.",
    "http://api.localhost",
    "http://[::1]",
    "http://0.0.0.0",
    "http://0",
    "http://127.1",
    "http://127.0.0.1.",
    "http://2130706433",
    "http://0x7f.1",
    "http://0x7f000001",
    "http://017700000001",
    "http://0177.0.0.1",
    "http://[::ffff:127.0.0.1]",
    "http://[::ffff:7f00:1]",
    "http://[::127.0.0.1]",
    "http://[64:ff9b::7f00:1]",
    "http://[64:ff9b::8.8.8.8]",
    "http://[2002:7f00:1::]",
    "http://[2001:0:7f00:1::]",
    "http://169.254.169.254/latest/meta-data",
    "http://metadata.google.internal",
    "http://printer.local",
    "http://10.0.0.1",
    "http://172.16.0.1",
    "http://192.168.1.1",
    "http://100.64.0.1",
    "http://198.18.0.1",
    "http://224.0.0.1",
    "http://240.0.0.1",
    "http://255.255.255.255",
    "http://[fd00::1]",
    "http://[fe80::1]",
    "http://[fec0::1]",
    "http://[ff02::1]",
    "http://[::]",
]
NEVER = [
    "http://fd00::1",
    "http://a@8.8.8.8",
    "http://a:b@8.8.8.8",
    "http://127.0.0.1#@ok.example",
    "http://ok.example\\@127.0.0.1",
    "http://ok.example:80@127.0.0.1",
    "http://①②⑦.0.0.1",
    "http://ok.example/a b",
    "http://ok.example/\r\nHost: other",
    "http://ok.example/\0",
    "file:///etc/passwd",
    "ftp://ok.example",
    "gopher://ok.example",
    "data:text/plain,x",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "unix:///var/run/docker.sock",
    "http://ok.example:22",
    "http://ok.example:25",
    "http://ok.example:4222",
    "https://ok.example:8222",
    "http://ok.example:99999",
    "http://",
    "//ok.example",
    "ok.example",
    "",
]


@pytest.mark.parametrize("url", [*INNER, *NEVER])
def test_a_url_that_leads_inside_or_astray_is_refused(url: str) -> None:
    with pytest.raises(NotAllowedError, match=r"^url"):
        check_url(url)


@pytest.mark.parametrize("url", NEVER)
def test_local_development_opens_no_port_scheme_or_trick(url: str) -> None:
    with pytest.raises(NotAllowedError, match=r"^url"):
        check_url(url, allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://ok.example/hooks/relay?v=1",
        "http://8.8.8.8:8080/",
        "https://[2606:4700::1111]/",
        "https://xn--fiqs8s.example/",
        "https://8.example.com/",
    ],
)
def test_an_address_of_the_internet_is_allowed(url: str) -> None:
    assert str(check_url(url)).rstrip("/") == url.rstrip("/")


def test_local_development_may_name_this_machine() -> None:
    assert check_url("http://127.0.0.1:9000/x", allow_private=True).port == 9000


@pytest.mark.parametrize("address", ["fe80::1%eth0", "nonsense", "", "192.0.2.1", "2001:db8::1"])
def test_what_is_no_address_of_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


async def test_every_address_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"mixed.example": ["8.8.8.8", "10.0.0.1"], "open.example": ["8.8.8.8", "8.8.8.8"]}

    async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        return [(2, 1, 6, "", (address, port)) for address in answers[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    found = await resolve("open.example", 80)
    with pytest.raises(NotAllowedError, match=r"10\.0\.0\.1"):
        await resolve("mixed.example", 80)

    assert found == ["8.8.8.8"]


async def test_a_name_for_this_machine_is_found_out_when_it_is_called() -> None:
    with pytest.raises(NotAllowedError, match="not a public address"):
        await resolve("127.1", 80)


async def test_a_name_for_this_machine_may_be_called_in_local_development() -> None:
    assert await resolve("127.0.0.1", 80, allow_private=True) == ["127.0.0.1"]
