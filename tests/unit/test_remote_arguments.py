"""The command line of a child in a process of its own."""

import pytest

from actors.remote import read_arguments


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--name Far", "--name 'Far': expected"),
        ("--name far --seconds 0.5", "--seconds 0.5: expected 1 to 3600"),
        ("--name far --wait 31", "--wait 31: expected 0 to 30"),
        ("--name far --timeout 0", "--timeout 0: expected more than 0"),
        ("", "--name"),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(
    capsys: pytest.CaptureFixture[str], words: str, problem: str
) -> None:
    with pytest.raises(SystemExit):
        read_arguments([*words.split(), "--call", "actors.commands:run"])

    assert problem in capsys.readouterr().err
