"""Letters are sent over real sockets, to servers that take them, put them off, or hang up."""

import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from actors.mail_options import MailOptions
from actors.mailer import Mailer
from runtime.errors import Reject, Retry
from schemas.base import Address, Message, Topic
from schemas.conversation import MessageAnswered, MessageSaid
from schemas.desk import Mailed, SendMail
from schemas.envelope import Envelope, decode_any, encode, seal
from schemas.model import Text, Utterance
from schemas.ownership import Case, Customer, Escalation, Hold, ManualMessage
from schemas.record import Record
from schemas.session import SessionState
from tests.unit.post_office import SECRET, PostOffice, certificate, post_office

NOW = datetime(2026, 11, 20, 19, 0, tzinfo=UTC)
TEAM = ("help@example.com", "boss@example.com")


class Attempt:
    """What a mailer sees of a job that is done: its facts, and what is stored of the session."""

    run = "0123456789abcdef"
    log = structlog.get_logger()

    def __init__(self, said: list[Message], hold: Hold | None = None, *, attempt: int = 1) -> None:
        self.attempt = attempt
        self.envelope = seal(Case, id="m1", source="test", subject="s1")  # type: ignore[arg-type]  # only its facts are read
        self.envelope = msgspec.structs.replace(self.envelope, time=NOW)
        self._said = said
        self._state = SessionState(hold=hold or Hold(), created=NOW)

    async def record(self, address: Address) -> Record | None:
        assert address == Address("session", "s1")
        return Record(stream="", done=1, key="s1", data=msgspec.Raw(encode(self._state)))

    async def read(
        self, topic: Topic, after: int = 0
    ) -> AsyncIterator[tuple[int, Envelope[msgspec.Raw]]]:
        assert topic == Topic("history", "s1")
        for number, message in enumerate(self._said, start=1):
            sealed = seal(message, id=f"{number}", source="test", subject="s1")
            at = NOW - timedelta(minutes=len(self._said) - number)
            yield number, decode_any(encode(msgspec.structs.replace(sealed, time=at)))


def said(text: str) -> MessageSaid:
    return MessageSaid(batch="b", message=Utterance(role="user", content=(Text(text),)))


def answered(text: str) -> MessageAnswered:
    return MessageAnswered(batch="b", task="t", run="r", attempt=1, model="m", text=text)


def options(office: PostOffice, **more: Any) -> MailOptions:
    facts: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": office.port,
        "security": "plain",
        "sender": "desk@example.com",
        "to": TEAM,
        "link": "https://desk.example/workbench?session={session}",
        "timeout": "5s",
        **more,
    }
    return MailOptions(**facts)


async def send(how: MailOptions, attempt: Attempt | None = None, **job: Any) -> Mailed:
    case = job.pop("case", Case(session="s1"))
    wanted = SendMail(case=case, **job)
    return await Mailer(how).send(wanted, attempt or Attempt([]))  # type: ignore[arg-type]  # all of a job that a mailer looks at


@pytest.mark.promise("FD-48", "FD-61")
async def test_a_letter_says_why_who_what_was_said_last_and_where_to_go_on() -> None:
    talk: list[Message] = [said(f"question {number}") for number in range(12)]
    talk += [answered("sorry"), ManualMessage(id="0", role="system", content="We are closed")]
    talk += [ManualMessage(id="1", role="user", content="a person, please")]
    hold = Hold(
        mode="pending_manual",
        customer=Customer(nickname="Zoë", email="zoe@example.org", vip=True),
        escalation=Escalation(reason="keyword", severity="high", evidence="人工"),
        pending_since=NOW,
    )
    async with post_office() as office:
        mailed = await send(options(office), Attempt(talk, hold))

    [letter], [to] = office.letters, office.recipients
    body = letter.get_body(("plain",))
    assert body is not None
    text = body.get_content().replace("\r\n", "\n")
    assert mailed == Mailed(conversation="s1", sent=True, to=TEAM)
    assert to == list(TEAM)
    assert letter["Subject"] == "VIP Zoë waits for a person (high)"
    assert letter["From"] == "Callboard <desk@example.com>"
    assert "Said: 人工" in text
    assert "E-mail: zoe@example.org" in text
    assert "https://desk.example/workbench?session=s1" in text
    assert text.count("> question") == 8
    assert "question 3" not in text
    assert "We are closed" not in text
    assert text.index("Bot, 2026-11-20 18:58 UTC\n> sorry") < text.index("> a person, please")


async def test_what_customers_say_becomes_neither_a_header_nor_markup() -> None:
    evil = "Eve\r\nBcc: all@example.com\r\n\r\n<script>alert(1)</script>"
    hold = Hold(
        customer=Customer(nickname=evil, language=evil),
        escalation=Escalation(reason="rule", evidence=evil, details=evil),
    )
    async with post_office() as office:
        link = "https://desk.example/?a=1&session={session}"
        case = Case(session="s1")
        await send(
            options(office, name="De\nsk", link=link), Attempt([said(evil)], hold), case=case
        )

    [letter], [to] = office.letters, office.recipients
    marked = letter.get_body(("html",))
    assert marked is not None
    assert letter["Bcc"] is None
    assert to == list(TEAM)
    assert letter["From"] == "De sk <desk@example.com>"
    assert str(letter["Subject"]).startswith("Eve Bcc: all@example.com <script>")
    assert "<script>" not in marked.get_content()
    assert 'href="https://desk.example/?a=1&amp;session=s1"' in marked.get_content()


def test_a_session_in_a_link_is_encoded() -> None:
    how = options(PostOffice(port=25))

    assert how.link_to("a b&x=1/../?").endswith("session=a%20b%26x%3D1%2F..%2F%3F")


@pytest.mark.promise("FD-61")
async def test_a_letter_that_is_put_off_is_sent_again_as_the_same_letter() -> None:
    async with post_office() as office:
        office.greylists = 2
        with pytest.raises(Retry, match="Greylisted") as put_off:
            await send(options(office), to=TEAM[:1])
        with pytest.raises(Retry) as again:
            await send(options(office), Attempt([], attempt=2), to=TEAM[:1])
        office.drops = 1
        with pytest.raises(Retry):
            await send(options(office), Attempt([], attempt=3))
        await send(options(office), Attempt([], attempt=4))

    assert put_off.value.after == timedelta(seconds=30)
    assert again.value.after == timedelta(seconds=120)
    assert {one["Message-ID"] for one in office.letters} == {"<0123456789abcdef@example.com>"}
    assert len(office.letters) == 2


@pytest.mark.parametrize(
    ("answers", "fault", "reason"),
    [
        ({"DATA": "554 5.7.1 We think it is spam"}, Reject, "554 5.7.1 We think it is spam"),
        ({"MAIL": "550 5.1.8 Who are you"}, Reject, "550 5.1.8"),
        ({"MAIL": "450 4.2.0 Busy"}, Retry, "450 4.2.0 Busy"),
        (dict.fromkeys(TEAM, "550 5.1.1 Unknown"), Reject, "help@example.com: 550 5.1.1 Unknown"),
        ({TEAM[0]: "550 No", TEAM[1]: "452 Full"}, Retry, "boss@example.com: 452 Full"),
    ],
)
async def test_the_servers_word_decides_whether_it_is_tried_again(
    answers: dict[str, str], fault: type[Exception], reason: str
) -> None:
    async with post_office() as office:
        office.says = answers
        with pytest.raises(fault, match=reason) as raised:
            await send(options(office))

    assert f"127.0.0.1:{office.port}" in str(raised.value)


async def test_who_was_refused_is_told_and_the_others_have_it() -> None:
    async with post_office() as office:
        office.says = {TEAM[0]: "550 5.1.1 Unknown"}
        mailed = await send(options(office))

    assert (mailed.sent, mailed.to) == (True, TEAM[1:])
    assert mailed.reason == "help@example.com: 550 5.1.1 Unknown"


async def test_where_nothing_listens_it_is_tried_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = PostOffice(port=taken.getsockname()[1])
        with pytest.raises(Retry, match=f"127.0.0.1:{nowhere.port}"):
            await send(options(nowhere))


async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    async with post_office() as office:
        office.silent = True
        with pytest.raises(Retry, match=r"(?i)timed out"):
            await send(options(office, timeout="200ms"))


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_login_goes_over_tls(
    security: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_PASSWORD", SECRET)
    context, trusted = certificate(tmp_path)
    async with post_office(context, at_once=security == "tls", login=True) as office:
        how = options(
            office,
            security=security,
            user="desk",
            password_env="DESK_PASSWORD",
            certificates=str(trusted),
        )
        mailed = await send(how)

    assert mailed.sent
    assert office.logins == [(b"desk", SECRET.encode())]


async def test_a_wrong_password_is_not_tried_again_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_PASSWORD", "something else")
    context, trusted = certificate(tmp_path)
    async with post_office(context, login=True) as office:
        how = options(
            office,
            security="starttls",
            user="desk",
            password_env="DESK_PASSWORD",
            certificates=str(trusted),
        )
        with pytest.raises(Reject, match="535") as raised:
            await send(how)

    assert "something else" not in str(raised.value)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    security: str, tmp_path: Path
) -> None:
    context, _ = certificate(tmp_path)
    async with post_office(context, at_once=security == "tls") as office:
        with pytest.raises(Retry, match="certificate verify failed"):
            await send(options(office, security=security))

    assert office.letters == []


async def test_a_server_without_starttls_gets_nothing_in_the_clear() -> None:
    async with post_office() as office:
        with pytest.raises(Retry, match="STARTTLS"):
            await send(options(office, security="starttls"))

    assert office.letters == []


async def test_a_password_that_is_not_there_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DESK_PASSWORD", raising=False)
    how = options(PostOffice(port=25), user="desk", password_env="DESK_PASSWORD")

    with pytest.raises(Reject, match="DESK_PASSWORD is not set"):
        await send(how)


@pytest.mark.parametrize(
    ("to", "code"),
    [
        (("eve@evil.example",), "recipient_not_allowed"),
        (("not an address",), "bad_recipient"),
        (("a@example.com\r\nBcc: b@example.com",), "bad_recipient"),
        (tuple(f"{n}@example.com" for n in range(21)), "bad_recipient"),
    ],
)
async def test_customers_words_go_to_nobody_else(to: tuple[str, ...], code: str) -> None:
    with pytest.raises(Reject) as raised:
        await send(options(PostOffice(port=25)), to=to)

    assert raised.value.refusal.code == code


async def test_a_domain_of_the_options_may_be_written_to() -> None:
    async with post_office() as office:
        mailed = await send(options(office, domains=("Example.ORG",)), to=("a@example.org",))

    assert mailed.to == ("a@example.org",)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"host": "smtp.example:25/x"}, "expected the name or address of an SMTP server"),
        ({"sender": "desk"}, "sender: 'desk' is not an e-mail address"),
        ({"sender": "a..b@c.de"}, "sender: 'a..b@c.de' is not an e-mail address"),
        ({"sender": "a.@c.de"}, "sender: 'a.@c.de' is not an e-mail address"),
        ({"to": ()}, "to: expected at least one address"),
        ({"to": ("a@b", "x")}, "to: 'x' is not an e-mail address"),
        ({"timeout": "soon"}, "timeout = 'soon' is not a duration"),
        ({"user": "desk"}, "belong together"),
        ({"user": "d", "password_env": "hunter2!"}, "expected the name of a variable"),
        (
            {"host": "smtp.example", "user": "d", "password_env": "P"},
            "would send the password for everybody to read",
        ),
        ({"link": "javascript:{session}"}, "expected a URL with {session} in it"),
        ({"link": "https://desk.example/"}, "expected a URL with {session} in it"),
        ({"link": "https://a:b@desk.example/{session}"}, "a login has no place"),
        ({"domains": ("exa mple",)}, "domains: 'exa mple'"),
    ],
)
def test_options_of_a_mailer_that_cannot_be_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # what it says is looked at below
        options(PostOffice(port=25), **more)

    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)
