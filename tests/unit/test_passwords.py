"""Which passwords are taken, and what is said of one that is not."""

import asyncio

import pytest
from argon2 import PasswordHasher

from runtime.passwords import NOBODY, Passwords, check_password

LIGHT = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.mark.parametrize("password", ["abcdefg1", "中文密码中文密码1", "correct horse 7 battery"])
def test_eight_characters_with_letters_and_digits_are_a_password(password: str) -> None:
    check_password(password)


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("abc1", "the password has 4 characters, expected 8 or more"),
        ("abcdefgh", "the password has no digit"),
        ("12345678", "the password has no letter"),
        (
            "",
            "the password has 0 characters, expected 8 or more and has no letter and has no digit",
        ),
        ("a1" * 200, "the password has 400 characters, expected at most 256"),
    ],
)
def test_what_a_password_lacks_is_said_and_the_password_is_not(password: str, said: str) -> None:
    with pytest.raises(ValueError, match="the password") as refused:
        check_password(password)

    assert str(refused.value) == said


async def test_a_password_is_known_by_its_hash_however_it_was_composed() -> None:
    passwords = Passwords(LIGHT)
    secret = await passwords.hash("\u00e9lan-vital-1")  # e with an accent, as one character

    assert secret.startswith("$argon2id$")
    assert await passwords.verify("e\u0301lan-vital-1", secret)  # and as two
    assert not await passwords.verify("elan-vital-1", secret)


async def test_nobody_has_a_password() -> None:
    passwords = Passwords(LIGHT)

    assert not await passwords.verify("anything1", None)
    assert not await passwords.verify("anything1", "not a hash")
    assert NOBODY.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


async def test_the_loop_goes_on_while_passwords_are_hashed() -> None:
    hashing = asyncio.gather(*(Passwords().hash("abcdefg1") for _ in range(2)))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0.001)
        turns += 1
    await hashing

    assert turns > 2
