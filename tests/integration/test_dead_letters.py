"""Dead letters as an operator works with them: `callboard dead …`, each letter settled once."""

import asyncio
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest

from runtime.dead import find_letter, replay
from runtime.errors import NotPossible
from runtime.testing import Kit, running
from schemas.base import Address, Topic
from schemas.record import Audited
from tests.integration.command import ROOT
from tests.integration.counter import HERE, Add, Counter, Get, failures
from tests.integration.desk import Moody, add, dead, fail, letter_of, moods, read_json

AUDIT = Topic("system", "audit")


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    failures.clear()
    moods.clear()
    async with running(counter=Counter, doubler=Moody) as kit:
        yield kit


async def test_a_list_shows_letters_without_what_they_say(kit: Kit) -> None:
    letter = await fail(kit)
    await kit.bus.publish("mail.counter.b", b"a secret of the user's")
    await letter_of(kit, 1)
    listed = dead(kit, "list")
    found = read_json(dead(kit, "list", "--json"))

    assert listed.returncode == 0
    assert "secret" not in listed.stdout
    assert "ValueError: not yet" in listed.stdout
    assert found[0]["letter"] == letter
    assert found[0]["type"] == "counter.fail"
    assert found[1]["address"] == "counter/b"


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        (("--actor", "counter"), 2),
        (("--actor", "doubler"), 0),
        (("--actor", "counter", "--key", "b"), 1),
        (("--reason", "NOT YET"), 1),
        (("--since", "1h"), 2),
        (("--limit", "1"), 1),
    ],
)
async def test_a_list_can_be_narrowed(kit: Kit, choice: tuple[str, ...], count: int) -> None:
    await fail(kit)
    await kit.bus.publish("mail.counter.b", b"garbage")
    await letter_of(kit, 1)

    assert len(read_json(dead(kit, "list", "--json", *choice))) == count


async def test_a_letter_is_shown_with_what_it_says_and_nothing_a_terminal_obeys(kit: Kit) -> None:
    await kit.bus.publish("mail.counter.b", b"red \x1b[31m \xc2\x9b and \xff")
    shown = dead(kit, "show", await letter_of(kit))

    assert shown.returncode == 0
    assert "red \\x1b[31m" in shown.stdout
    assert not set("\x1b\x9b") & set(shown.stdout)
    assert "reason:     unreadable" in shown.stdout


async def test_a_replayed_request_is_handled_and_its_repeat_gets_the_new_answer(kit: Kit) -> None:
    letter = await fail(kit)
    body = (await find_letter(kit.bus, letter)).body
    done = dead(kit, "replay", letter)
    await kit.settled()
    # The client asks again under its old id, long after the broker has forgotten it.
    repeat = await kit.bus.publish("mail.counter.a", body)
    await kit.settled()
    record = await kit.record(HERE)
    assert record is not None

    assert done.returncode == 0
    assert f"letter {letter} replayed: counter/a, message" in done.stdout
    assert record.done == repeat.seq
    assert (await kit.ask(HERE, Get())).n == 1000
    assert [one.answer.refusal is None for one in record.replies] == [False, True]


async def test_a_letter_is_replayed_once_however_often_it_is_said(kit: Kit) -> None:
    letter = await fail(kit)
    first, second = dead(kit, "replay", letter), dead(kit, "replay", letter)
    discarded = dead(kit, "discard", letter)

    assert [first.returncode, second.returncode, discarded.returncode] == [0, 0, 1]
    assert f"letter {letter} was replayed before, by" in second.stdout
    assert f"letter {letter} was replayed before, by" in discarded.stdout
    assert (await kit.ask(HERE, Get())).n == 1000
    assert read_json(dead(kit, "list", "--json")) == []
    assert len(read_json(dead(kit, "list", "--json", "--settled"))) == 1


async def test_of_many_who_replay_a_letter_at_once_one_does(kit: Kit) -> None:
    letter = await fail(kit)
    found = [await find_letter(kit.bus, letter) for _ in range(20)]
    done = await asyncio.gather(*(replay(kit.bus, one) for one in found))

    assert [one.before for one in done].count(False) == 1
    assert (await kit.ask(HERE, Get())).n == 1000


async def test_whoever_replays_may_be_killed_anywhere_and_begin_again(kit: Kit) -> None:
    count = 60
    for key in range(count):
        await kit.bus.publish(f"mail.counter.k{key}", b"garbage")
        await kit.bus.publish(f"mail.counter.k{key}", add(f"k{key}"))
    await letter_of(kit, count - 1)
    await kit.settled()
    await kit.stop_host()  # so that nothing that is replayed dies again meanwhile
    words = (sys.executable, "-m", "runtime", "dead", "replay", "--actor", "counter", "--all")
    kills = 0
    while True:
        process = await asyncio.create_subprocess_exec(
            *words, "--nats", kit.server.url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(5):
            await process.stdout.readline()
        if process.returncode is None and kills < 8:
            kills += 1
            process.kill()
        await process.communicate()
        if process.returncode == 0:
            break
    mail = await kit.bus.read_all("mail.>", after=await letter_of(kit, count - 1))
    marks = await kit.bus.read_all("dead.SETTLED.*", after=0)

    assert kills == 8
    assert len(mail) == len({one.subject for one in mail}) == len(marks) == count
    assert len(await kit.events(AUDIT, Audited)) == count
    await kit.start_host()


async def test_all_letters_of_an_actor_are_replayed_if_that_is_meant(kit: Kit) -> None:
    await fail(kit, "a")
    await fail(kit, "b")
    unclear = dead(kit, "replay", "--actor", "counter")
    tried = dead(kit, "replay", "--actor", "counter", "--all", "--dry-run")
    left = len(read_json(dead(kit, "list", "--json")))
    done = dead(kit, "replay", "--actor", "counter", "--all")

    assert (unclear.returncode, tried.returncode, done.returncode) == (1, 0, 0)
    assert "--all" in unclear.stderr
    assert tried.stdout.count("would go to") == left == 2
    assert "2 letters replayed" in done.stdout
    assert (await kit.ask(Address("counter", "b"), Get())).n == 1000


async def test_what_is_done_to_letters_is_kept_with_who_did_it(kit: Kit) -> None:
    letter = await fail(kit)
    dead(kit, "discard", letter)
    kept = await kit.event(AUDIT, Audited)

    assert (kept.action, kept.target) == ("dead.discarded", "counter/a")
    assert f"letter {letter}" in kept.detail
    assert "@" in kept.by


async def test_a_discarded_letter_is_never_replayed(kit: Kit) -> None:
    letter = await fail(kit)
    discarded, again = dead(kit, "discard", letter), dead(kit, "discard", letter)
    replayed = dead(kit, "replay", letter)

    assert [discarded.returncode, again.returncode, replayed.returncode] == [0, 0, 1]
    assert "was discarded before" in replayed.stdout
    assert (await kit.ask(HERE, Get())).n == 0


async def test_a_letter_cannot_have_things_sent_to_others(kit: Kit) -> None:
    told = {"type": "dead.letter", "sequence": 1, "reason": "", "body": "x"}
    told["subject"] = "mail.3.counter.somebody"
    forged = msgspec.json.decode(add("a")) | {"type": "dead.letter", "data": told}
    ack = await kit.bus.publish("dead.counter.a", msgspec.json.encode(forged))
    junk = await kit.bus.publish("dead.counter.a", b"\xff")

    assert "names another's mailbox" in dead(kit, "replay", ack.seq).stderr
    assert "does not say where it came from" in dead(kit, "replay", junk.seq).stderr
    assert dead(kit, "discard", ack.seq, junk.seq).returncode == 0


async def test_what_is_no_letter_is_named(kit: Kit) -> None:
    seq = await kit.tell(HERE, Add(n=1))
    with pytest.raises(NotPossible, match="there is no message 999999"):
        await find_letter(kit.bus, 999_999)
    shown = dead(kit, "show", seq)
    wrong = dead(kit, "show", "x")

    assert shown.returncode == 1
    assert f"message {seq} is no dead letter" in shown.stderr
    assert wrong.returncode == 2


async def test_a_letter_of_an_actor_that_is_gone_waits(kit: Kit) -> None:
    body = msgspec.json.encode(
        msgspec.json.decode(add("a"))
        | {
            "type": "dead.letter",
            "data": {
                "type": "dead.letter",
                "subject": "mail.3.gone.a",
                "sequence": 1,
                "reason": "?",
                "body": "x",
            },
        }
    )
    ack = await kit.bus.publish("dead.gone.a", body)
    done = dead(kit, "replay", ack.seq)

    assert done.returncode == 1
    assert "no actor 'gone' is deployed" in done.stderr


async def test_what_dies_again_is_not_replayed_for_ever(kit: Kit) -> None:
    await kit.bus.publish("mail.counter.b", b"garbage")
    await letter_of(kit)
    done = dead(kit, "replay", "--actor", "counter", "--all")
    await letter_of(kit, 1)

    assert done.stdout.endswith("1 letter replayed\n")
    assert len(read_json(dead(kit, "list", "--json"))) == 1
