"""Hours and a mail server that the environment names, as the old system had them."""

from typing import Any

import pytest

from runtime.actor_table import ActorTable
from runtime.errors import ConfigError
from runtime.terminal.desk_environment import DESK_TYPE, named_mailer, with_hours

DESK = ActorTable(name="desk", type=DESK_TYPE)
OTHER = ActorTable(name="session", type="actors.session:Session")
MAIL = {
    "SMTP_HOST": "smtp.example",
    "SMTP_USER": "desk@example.com",
    "SMTP_PASSWORD": "hunter2-hunter2",
    "SUPPORT_EMAILS": "a@example.com, b@example.com;c@example.com",
}


def hours(**environ: str) -> Any:
    return with_hours([OTHER, DESK], environ)[1].options.get("calendar")


@pytest.mark.promise("FD-60")
def test_hours_of_the_environment_are_the_desks() -> None:
    assert hours(
        HUMAN_SHIFT_START="22:00",
        HUMAN_SHIFT_END="06:00",
        TIMEZONE="Europe/Berlin",
        WEEKENDS_DISABLED="false",
        HOLIDAYS="2026-12-25, 2026-10-01/2026-10-07",
    ) == {
        "timezone": "Europe/Berlin",
        "shifts": [{"start": "22:00", "end": "06:00", "days": [1, 2, 3, 4, 5, 6, 7]}],
        "holidays": ["2026-12-25", "2026-10-01/2026-10-07"],
    }


@pytest.mark.promise("FD-60")
def test_what_is_not_said_is_as_the_old_system_had_it() -> None:
    assert hours(HUMAN_SHIFT_START="09:00") == {
        "timezone": "Asia/Shanghai",
        "shifts": [{"start": "09:00", "end": "18:00", "days": [1, 2, 3, 4, 5]}],
        "holidays": [],
    }


def test_without_hours_a_desk_is_as_it_is_configured() -> None:
    own = {"calendar": {"timezone": "UTC"}}
    desk = ActorTable(name="desk", type=DESK_TYPE, options=own)

    assert hours(TIMEZONE="Europe/Berlin") is None
    assert with_hours([desk], {"HUMAN_SHIFT_START": "09:00"})[0].options == own
    assert with_hours([OTHER], {"HUMAN_SHIFT_START": "09:00"}) == [OTHER]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HUMAN_SHIFT_START": "9 am"}, "HUMAN_SHIFT_START.*start '9 am': expected a time"),
        ({"HUMAN_SHIFT_END": "18:00", "TIMEZONE": "Mars"}, "TIMEZONE: timezone 'Mars'"),
        ({"WEEKENDS_DISABLED": "maybe"}, "WEEKENDS_DISABLED: 'maybe': expected true or false"),
        ({"HOLIDAYS": "christmas"}, "HOLIDAYS.*'christmas': expected a date"),
    ],
)
def test_hours_that_cannot_be_are_refused_by_their_variable(
    environ: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        with_hours([DESK], environ)


@pytest.mark.promise("FD-48", "FD-61")
def test_a_server_of_the_environment_is_a_mailer_that_tries_three_times() -> None:
    [mailer] = named_mailer(MAIL, ())

    assert (mailer.name, mailer.kind, mailer.attempts) == ("mailer", "worker", 3)
    assert mailer.options == {
        "host": "smtp.example",
        "port": 587,
        "security": "starttls",
        "sender": "desk@example.com",
        "to": ["a@example.com", "b@example.com", "c@example.com"],
        "link": "",
        "user": "desk@example.com",
        "password_env": "SMTP_PASSWORD",
    }
    assert named_mailer(MAIL, ("mailer",)) == []
    assert named_mailer({}, ()) == []


@pytest.mark.parametrize(
    ("more", "security"),
    [
        ({"SMTP_PORT": "465"}, "tls"),
        ({"SMTP_PORT": "25"}, "starttls"),
        ({"SMTP_HOST": "127.0.0.1", "SMTP_PORT": "1025"}, "plain"),
    ],
)
def test_a_server_elsewhere_is_never_spoken_to_in_the_clear(
    more: dict[str, str], security: str
) -> None:
    [mailer] = named_mailer({**MAIL, **more}, ())

    assert mailer.options["security"] == security


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"SUPPORT_EMAILS": ""}, "SUPPORT_EMAILS.*expected at least one address"),
        ({"SMTP_FROM": "desk"}, "SMTP_FROM.*sender: 'desk'"),
        ({"SMTP_PORT": "smtp"}, "SMTP_PORT: 'smtp': expected a port"),
        ({"SMTP_PORT": "99999"}, "SMTP_PORT"),
        ({"WORKBENCH_LINK": "https://desk.example"}, "WORKBENCH_LINK: link"),
    ],
)
def test_a_server_that_cannot_be_is_refused_without_its_password(
    more: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        named_mailer({**MAIL, **more}, ())

    assert "hunter2" not in str(raised.value)
