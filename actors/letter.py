"""What a letter about a conversation says: why, what was said last, where to go on with it.

Customers' words are quoted in it, so nothing of them becomes a header or markup.
"""

import html
from datetime import datetime
from email.headerregistry import Address as MailAddress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import NamedTuple

from actors.limits import clip
from actors.mail_options import MailOptions
from schemas.ownership import Case

MOST_QUOTED = 1000
MOST_NAME = 80
MOST_DETAILS = 500
WORDS = {"user": "Customer", "assistant": "Bot", "agent": "Agent", "system": "Desk"}
REASONS = {
    "keyword": "the customer asked for a person",
    "fail_loop": "the bot failed several times",
    "vip": "the customer is a VIP",
    "rule": "a rule of the desk",
    "manual": "a person was called",
}
STYLE = "border-left:3px solid #ccc;margin:0 0 8px;padding:0 0 0 8px;white-space:pre-wrap"


class Quoted(NamedTuple):
    """One message of a conversation."""

    by: str
    text: str
    at: datetime


class Letter(NamedTuple):
    """What a letter is about."""

    case: Case
    messages: list[Quoted]
    to: tuple[str, ...]


def compose(letter: Letter, options: MailOptions, *, id: str, at: datetime) -> EmailMessage:
    """A letter ready to be sent; the same `id` again makes it recognisable as the same."""
    message = EmailMessage(policy=SMTP)
    message["From"] = MailAddress(one_line(options.name), addr_spec=options.sender)
    message["To"] = ", ".join(letter.to)
    message["Subject"] = subject(letter.case)
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{id}@{options.sender.rpartition('@')[2]}>"
    # So that no absence notice answers it.
    message["Auto-Submitted"] = "auto-generated"
    link = options.link_to(letter.case.session)
    message.set_content(as_text(letter, link))
    message.add_alternative(as_html(letter, link), subtype="html")
    return message


def subject(case: Case) -> str:
    """One line that tells letters apart."""
    who = one_line(case.customer.nickname) or one_line(case.session)
    vip = "VIP " if case.customer.vip else ""
    severity = f" ({case.escalation.severity})" if case.escalation else ""
    return f"{vip}{clip(who, MOST_NAME)} waits for a person{severity}"


def facts(case: Case) -> list[tuple[str, str]]:
    """What is known of a case, each with its name."""
    escalation, customer = case.escalation, case.customer
    known = [("Session", case.session), ("Customer", customer.nickname)]
    known += [("E-mail", customer.email), ("Language", customer.language)]
    if escalation is not None:
        known += [
            ("Reason", REASONS.get(escalation.reason, escalation.reason)),
            ("Severity", escalation.severity),
            ("Said", escalation.evidence),
            ("Details", escalation.details),
        ]
    if case.pending_since is not None:
        known.append(("Waits since", moment(case.pending_since)))
    if case.closed_until is not None:
        known.append(("Desk opens", moment(case.closed_until)))
    return [(name, clip(one_line(text), MOST_DETAILS)) for name, text in known if text.strip()]


def as_text(letter: Letter, link: str) -> str:
    """The letter for who reads plain text."""
    lines = ["A customer waits for a person.", ""]
    lines += [f"{name}: {text}" for name, text in facts(letter.case)]
    if link:
        lines += ["", f"Go on here: {link}"]
    if letter.messages:
        lines += ["", f"The last {len(letter.messages)} messages:"]
    for one in letter.messages:
        quoted = "\n".join(f"> {line}" for line in _body(one).splitlines())
        lines += ["", f"{WORDS.get(one.by, one.by)}, {moment(one.at)}", quoted]
    return "\n".join(lines) + "\n"


def as_html(letter: Letter, link: str) -> str:
    """The same for who reads HTML."""
    rows = "".join(
        f"<tr><th align=left>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in facts(letter.case)
    )
    parts = ["<p>A customer waits for a person.</p>", f"<table>{rows}</table>"]
    if link:
        parts.append(f'<p><a href="{html.escape(link)}">Go on with this conversation</a></p>')
    for one in letter.messages:
        who = f"{WORDS.get(one.by, one.by)}, {moment(one.at)}"
        parts.append(
            f'<p><small>{html.escape(who)}</small></p><div style="{STYLE}">'
            f"{html.escape(_body(one))}</div>"
        )
    return "<!doctype html><html><body>" + "\n".join(parts) + "</body></html>\n"


def moment(at: datetime) -> str:
    """A moment as people read it."""
    return f"{at:%Y-%m-%d %H:%M} {at.tzname() or ''}".strip()


def one_line(text: str) -> str:
    """A text without what would end a header's line, or hide in it."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _body(one: Quoted) -> str:
    kept = (each if each.isprintable() or each in "\n\t" else " " for each in one.text)
    return clip("".join(kept), MOST_QUOTED)
