"""Sends letters about conversations, by SMTP. What they say: actors/letter.py.

A letter that cannot be sent is told to the desk that wanted it, and harms no conversation.
"""

import os
import ssl
from collections import deque
from typing import ClassVar

import aiosmtplib
import msgspec
from msgspec.structs import replace

from actors.letter import Letter, Quoted, compose
from actors.limits import clip
from actors.mail_options import MailOptions, check_recipients
from runtime.actor import Worker, handler
from runtime.errors import Reject, Retry, StateUndecodable
from runtime.work import Work
from schemas.base import Address, tag_of
from schemas.conversation import MessageAnswered, MessageSaid
from schemas.desk import Mailed, SendMail
from schemas.envelope import UNREADABLE, Envelope
from schemas.model import Text, history_topic
from schemas.ownership import Case, ManualMessage
from schemas.session import SessionState

MOST_MESSAGES = 50
MOST_REASON = 300
PERMANENT = 500
"""SMTP's codes from here on mean that the same again would be refused again."""

Code = tuple[int, str]


class Mailer(Worker):
    """Writes letters."""

    Options: ClassVar[type[msgspec.Struct] | None] = MailOptions
    options: MailOptions

    @handler
    async def send(self, job: SendMail, ctx: Work) -> Mailed:
        """Send one; raises Reject for what will never be sent, Retry for what may be later."""
        to = self._recipients(job)
        case, after = await self._look_up(job, ctx)
        letter = Letter(case, await _last(job, after, ctx), to)
        id = ctx.run or ctx.envelope.id
        message = compose(letter, self.options, id=id, at=ctx.envelope.time)
        try:
            refused = await self._hand_over(message.as_bytes(), to)
        except Retry as retry:
            raise Retry(str(retry), after=self.options.pause(ctx.attempt)) from None
        got = tuple(one for one in to if one not in refused)
        return Mailed(conversation=job.case.session, sent=True, to=got, reason=_shown(refused))

    def _recipients(self, job: SendMail) -> tuple[str, ...]:
        to = tuple(dict.fromkeys(job.to or self.options.to))
        try:
            check_recipients("to", to)
        except ValueError as error:
            raise Reject("bad_recipient", str(error), status=422) from None
        for one in to:
            if not self.options.may_write_to(one):
                detail = f"{one!r} is neither in the mailer's `to` nor in one of its `domains`"
                raise Reject("recipient_not_allowed", detail, status=422)
        return to

    async def _look_up(self, job: SendMail, ctx: Work) -> tuple[Case, int]:
        """The case as it is now, and after which sequence its last messages are."""
        try:
            record = await ctx.record(Address(self.options.sessions, job.case.session))
            data = record.data if record is not None else None
            state = msgspec.json.decode(data or b"{}", type=SessionState)
        except (StateUndecodable, *UNREADABLE) as error:
            ctx.log.warning("session_unreadable", error=str(error))
            return job.case, 0
        hold, many = state.hold, min(max(job.messages, 0), MOST_MESSAGES)
        case = replace(
            job.case,
            title=state.title,
            escalation=hold.escalation or job.case.escalation,
            customer=hold.customer,
            closed_until=hold.closed_until,
            pending_since=hold.pending_since,
        )
        # What was said with a mark is stored after it; fewer marks say nothing of the log.
        return case, state.marks[-many] if 0 < many <= len(state.marks) else 0

    # -- the server ------------------------------------------------------------------------

    async def _hand_over(self, message: bytes, to: tuple[str, ...]) -> dict[str, Code]:
        """Give a letter to the server; returns whom it would not take it for, and why."""
        try:
            async with self._server() as server:
                refused, _ = await server.sendmail(self.options.sender, to, message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [one.code for one in error.recipients]
            reason = "; ".join(f"{one.recipient}: {_said(one)}" for one in error.recipients)
            raise self._verdict(min(codes, default=PERMANENT), reason) from None
        except aiosmtplib.SMTPResponseException as error:
            raise self._verdict(error.code, _said(error)) from None
        except (aiosmtplib.SMTPException, OSError, EOFError) as error:
            raise Retry(self._at(str(error) or type(error).__name__)) from None
        return {one: (found.code, found.message) for one, found in refused.items()}

    def _server(self) -> aiosmtplib.SMTP:
        options = self.options
        return aiosmtplib.SMTP(
            hostname=options.host,
            port=options.port,
            username=options.user or None,
            password=self._password() or None,
            use_tls=options.security == "tls",
            start_tls=options.security == "starttls",
            tls_context=self._trust() if options.security != "plain" else None,
            timeout=options.patience,
        )

    def _password(self) -> str:
        name = self.options.password_env
        found = os.environ.get(name, "").strip() if name else ""
        if name and not found:
            detail = f"password_env: the environment variable {name} is not set on this host"
            raise Reject("no_password", detail, status=503)
        return found

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if path := self.options.certificates:
            try:
                context.load_verify_locations(path)
            except (OSError, ssl.SSLError) as error:
                detail = f"certificates {path!r}: {error}"
                raise Reject("no_certificates", detail, status=503) from None
        return context

    def _verdict(self, code: int, reason: str) -> Reject | Retry:
        """Never, or later: as the server says."""
        if code >= PERMANENT:
            return Reject("mail_refused", self._at(reason), status=502)
        return Retry(self._at(reason))

    def _at(self, reason: str) -> str:
        return clip(f"{self.options.host}:{self.options.port}: {reason}", MOST_REASON)


def _said(error: aiosmtplib.SMTPResponseException) -> str:
    return f"{error.code} {' '.join(error.message.split())}"


def _shown(refused: dict[str, Code]) -> str:
    """Who did not get it."""
    each = (f"{one}: {code} {' '.join(text.split())}" for one, (code, text) in refused.items())
    return clip("; ".join(each), MOST_REASON)


async def _last(job: SendMail, after: int, ctx: Work) -> list[Quoted]:
    """The last messages of a conversation, oldest first."""
    found: deque[Quoted] = deque(maxlen=min(max(job.messages, 0), MOST_MESSAGES))
    async for _, envelope in ctx.read(history_topic(job.case.session), after=after):
        try:
            quoted = _read(envelope)
        except UNREADABLE as error:
            ctx.log.warning("message_unreadable", id=envelope.id, error=str(error))
            continue
        if quoted is not None and quoted.text.strip():
            found.append(quoted)
    return list(found)


def _read(envelope: Envelope[msgspec.Raw]) -> Quoted | None:
    """A message of a history as a letter quotes it; None for any other event."""
    if envelope.type == tag_of(ManualMessage):
        manual = msgspec.json.decode(envelope.data, type=ManualMessage)
        # What the desk itself says would only be in the way of what people said.
        return None if manual.role == "system" else _quoted(manual.role, manual.content, envelope)
    if envelope.type == tag_of(MessageAnswered):
        answer = msgspec.json.decode(envelope.data, type=MessageAnswered)
        return _quoted("assistant", answer.text, envelope)
    if envelope.type == tag_of(MessageSaid):
        said = msgspec.json.decode(envelope.data, type=MessageSaid).message
        text = "\n".join(part.text for part in said.content if isinstance(part, Text))
        return _quoted(said.role, text, envelope)
    return None


def _quoted(by: str, text: str, envelope: Envelope[msgspec.Raw]) -> Quoted:
    return Quoted(by, text, envelope.time)
