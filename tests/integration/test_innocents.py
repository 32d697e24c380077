"""What one bad message may not do to others of its key, nor to the hosts."""

import asyncio

import pytest

from runtime.bus import new_id
from runtime.kv import Bucket
from runtime.testing import running
from schemas import subjects
from schemas.base import Address
from schemas.envelope import encode, seal
from tests.integration.counter import HERE, Add, Counter, Get, Wake
from tests.integration.test_hostile_mail import ODD, Do, Odd
from tests.integration.waiting import until_known


async def test_what_comes_while_one_waits_for_its_burial_is_not_buried_with_it() -> None:
    async with running(odd=Odd) as kit:
        # Slow enough for others to come between its last try and its burial.
        kit.host.system.first_backoff = 0.01
        await kit.tell(ODD, Do(what="bad header"))

        async def tried_for_the_last_time() -> bool:
            failing = kit.host.system.failing.get(("odd", "a"))
            return failing is not None and failing.tries >= 5

        await until_known(tried_for_the_last_time)
        for _ in range(3):
            await kit.tell(ODD, Do(what="well"))
        await kit.settled(30)
        state, letters = await kit.state(ODD), await kit.dead_letters()

    assert len(letters) == 1
    assert state.n == 3


@pytest.mark.parametrize("size", [100_000, 600_000, 950_000])
@pytest.mark.parametrize("reply", ["", "_INBOX.nobody"])
async def test_an_id_too_long_to_be_remembered_does_not_stop_its_key(size: int, reply: str) -> None:
    async with running(counter=Counter) as kit:
        envelope = seal(Add(n=1), id="i" * size, source="x", subject="a", replyto=reply)
        await kit.bus.publish(subjects.mail(HERE), encode(envelope))
        for n in range(4):
            await kit.bus.publish(
                subjects.mail(HERE),
                encode(seal(Add(n=1), id=f"{n}" * size, source="x", subject="a", replyto=reply)),
            )
        answer = await kit.ask(HERE, Get(), timeout=20)
        failed = kit.host.failed.done()

    assert 0 <= answer.n <= 5
    assert not failed


async def test_a_reply_subject_of_any_kind_ends_nobody() -> None:
    async with running(counter=Counter) as kit:
        for reply in (
            "_INBOX.a b",
            "_INBOX.\r\nPUB x 1\r\n",
            "_INBOX." + "x" * 100_000,
            "_INBOX.é",
        ):
            sealed = seal(Add(n=1), id=new_id(), source="x", subject="a", replyto=reply)
            await kit.bus.publish(subjects.mail(HERE), encode(sealed))
        answer = await kit.ask(HERE, Get())
        failed = kit.host.failed.done()

    assert answer.n == 4
    assert not failed


@pytest.mark.parametrize("value", [b"\xff", b'{"address":"\xff"}', b"[" * 100_000, b"", b"{}"])
async def test_what_nobody_can_read_in_the_bucket_of_controls_ends_no_host(value: bytes) -> None:
    async with running(counter=Counter) as kit:
        for key in ("control.other", "control.counter.a", "control.a.b.c"):
            await Bucket(kit.bus, "config").put(key, value)
        await kit.tell(HERE, Wake(text="one"))
        await kit.stop_host()
        await kit.start_host()
        await asyncio.wait_for(kit.ask(Address("counter", "b"), Add(n=1)), 10)
        await kit.settled()
        failed = kit.host.failed.done()

    assert not failed
