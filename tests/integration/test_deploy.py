"""`callboard deploy` as its users run it: a process of its own beside a host that follows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from actors.child import Child
from actors.master import Master
from runtime.audit import AUDIT
from runtime.bus import Bus
from runtime.deployments import read_deployments, read_roster
from runtime.kv import Bucket
from runtime.terminal.supervisor import EX_CONFIG
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.deployment import Deployment, Roster
from schemas.node import Node
from schemas.record import Audited
from tests.integration.edges import serving
from tests.integration.rosters import HERE, Put, Sum, Weigher, adder, deploy, weigher
from tests.integration.terminal import ADDER, Hand, answered
from tests.integration.waiting import until, until_known

A = Address("adder", "a")
CALLABLE = {"kind": "callable", "call": "actors.commands:run"}


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    Weigher.reset()
    async with running() as kit:
        yield kit


@pytest.fixture
def hand(kit: Kit, tmp_path: Path) -> Hand:
    return Hand(kit, tmp_path)


async def revision(bus: Bus) -> int:
    kept = await read_roster(bus)
    return kept.roster.revision if kept else 0


async def test_a_file_is_deployed_and_the_hosts_that_took_it_are_named(
    kit: Kit, hand: Hand
) -> None:
    done = await hand.deploy(ADDER + "options = { step = 5 }\n")
    answer = await kit.ask(A, Put())
    again = await hand.run(str(hand.folder / "plan.toml"))
    audited = await kit.events(AUDIT, Audited)

    assert done.said[:2] == ["+ adder  keyed", f"    type: {HERE}:Adder"]
    assert done.said[-2:] == ["deployed as revision 1", f"{kit.host.name} runs it"]
    assert (done.code, done.errors) == (0, [])
    assert answer == Sum(n=5, count=1)
    assert again.said == ["= unchanged: adder", "nothing to change: revision 1 is just so"]
    assert again.code == 0
    assert [(a.action, a.target, a.detail) for a in audited] == [
        ("deploy", "revision 1", "+adder (from plan.toml)")
    ]


async def test_everything_wrong_with_a_file_is_said_at_once_with_its_line_and_nothing_done(
    kit: Kit, hand: Hand
) -> None:
    await deploy(kit.bus, adder())
    text = (
        "[[actor]]\nname = 'Adder'\ntype = 'no_such:Thing'\nmail_ttl = 'soon'\n"
        f"[[actor]]\nname = 'b'\ntype = '{HERE}:Adder'\n[actor.options]\nstep = 'x'\n"
        f"[[actor]]\nname = 'b'\ntype = '{HERE}:Nothing'\nconcurency = 1\n"
        "[actors]\nx = 1\n"
    )
    done = await hand.deploy(text)
    path = hand.folder / "plan.toml"
    expected = [
        "2: actor.name: 'Adder': expected a lower-case letter",
        '3: actor.type: cannot load type "no_such:Thing"',
        "4: actor.mail_ttl: 'soon' is not a duration",
        "9: actor.options.step: Expected `int`, got `str`",
        "11: actor.name: 'b' is given twice",
        f'12: actor.type: cannot load type "{HERE}:Nothing"',
        "13: actor.concurency: unknown key; did you mean 'concurrency'?",
        "14: actors: unknown key; did you mean 'actor'?",
    ]

    assert done.code == EX_CONFIG
    assert [
        line.startswith(f"callboard: {path}:{start}")
        for line, start in zip(done.errors, expected, strict=True)
    ] == [True] * len(expected), done.errors
    assert done.said == []
    assert await revision(kit.bus) == 1


async def test_a_whole_configuration_may_be_deployed_and_its_other_tables_are_passed_over(
    kit: Kit, hand: Hand
) -> None:
    done = await hand.deploy("[nats]\nport = 99999\n" + ADDER)

    assert done.said[0].endswith("plan.toml: [nats] passed over: read when a process starts")
    assert done.code == 0


async def test_a_dry_run_shows_what_would_change_and_changes_nothing(kit: Kit, hand: Hand) -> None:
    await deploy(kit.bus, adder(1), weigher())
    changed = ADDER + "options = { step = 2 }\nlifetime = '90s'\n"
    done = await hand.deploy(changed, "--prune", "--dry-run")

    assert done.said == [
        "~ adder",
        "    options.step: 1 → 2",
        "    lifetime: 30d → 90s",
        f"- weigher  worker  {HERE}:Weigher",
        "nothing was changed: this was a dry run",
    ]
    assert done.code == 0
    assert await revision(kit.bus) == 1


async def test_secrets_in_options_are_neither_shown_nor_kept_without_a_word(
    kit: Kit, hand: Hand
) -> None:
    keeper = f"[[actor]]\nname = 'keeper'\ntype = '{HERE}:Keeper'\n"
    first = await hand.deploy(keeper + "options = { token = 'hush', token_env = 'A' }\n")
    second = await hand.deploy(keeper + "options = { token = 'hush-hush', token_env = 'B' }\n")

    assert "hush" not in "\n".join(first.said + second.said + first.errors + second.errors)
    assert "token is kept as it is here; name a variable" in first.said[0]
    assert "    options.token: *** → another one" in second.said
    assert '    options.token_env: "A" → "B"' in second.said


async def test_removing_needs_a_word_where_nobody_can_be_asked_and_says_what_waits(
    kit: Kit, hand: Hand
) -> None:
    await deploy(kit.bus, adder())
    await kit.ask(A, Put())
    refused = await hand.run("--remove", "adder")
    await kit.stop_host()
    await kit.tell(A, Put())
    done = await hand.run("--remove", "adder", "--yes")
    deployed = await read_deployments(kit.bus)
    await kit.start_host()

    assert refused.code == 1
    assert "say --yes" in refused.errors[0]
    assert "note: adder has 1 waiting; it waits until adder is deployed again" in done.said[1]
    assert done.said[-1] == "no host is alive; each takes it when it starts"
    assert done.code == 0
    assert deployed == {}


async def test_who_is_asked_may_say_no(kit: Kit, hand: Hand) -> None:
    await deploy(kit.bus, adder())
    done = await answered(hand, "n\n", "--remove", "adder")

    assert done == (1, "nothing was changed")
    assert await revision(kit.bus) == 1


async def test_of_two_who_deploy_at_once_one_wins_and_the_other_is_told(
    kit: Kit, hand: Hand
) -> None:
    await deploy(kit.bus, adder(1))

    async def meanwhile() -> Roster:
        return await deploy(kit.bus, adder(7))

    code, said = await answered(hand, "y\n", "--remove", "adder", meanwhile=meanwhile)
    deployed = await read_deployments(kit.bus)

    assert code == 1
    assert "revision 2 was deployed by test meanwhile, so nothing of this was" in said
    assert deployed["adder"].options == {"step": 7}


async def test_many_at_once_deploy_one_after_the_other_and_no_change_is_lost(
    kit: Kit, hand: Hand
) -> None:
    names = [f"adder{n}" for n in range(5)]
    files = [hand.write(ADDER.replace("'adder'", f"'{name}'"), f"{name}.toml") for name in names]
    done = await asyncio.gather(*(hand.run(str(path), "--wait", "0") for path in files))
    deployed = await read_deployments(kit.bus)
    won = [name for name, one in zip(names, done, strict=True) if "deployed as" in str(one.said)]
    told = [one for one in done if "meanwhile" in str(one.errors)]

    assert sorted(deployed) == won
    assert len(won) + len(told) == len(names)
    assert await revision(kit.bus) == len(won) > 0


async def test_a_host_that_cannot_run_it_is_named_with_its_reason(kit: Kit, hand: Hand) -> None:
    text = f"[[actor]]\nname = 'weigher'\ntype = '{HERE}:Weigher'\n"
    done = await hand.deploy(text + "options = { broken = 'no scales' }\n")
    mended = await hand.deploy(text)

    took = f"{kit.host.name} took it, but weigher stands still there: OSError: no scales"
    assert done.said[-1] == took
    assert (done.code, mended.code) == (1, 0)
    assert mended.said[-1] == f"{kit.host.name} runs it"


async def test_a_host_that_does_not_follow_is_named(kit: Kit, hand: Hand) -> None:
    frozen = Node(name="frozen", pid=1, started=datetime.now(UTC), actors=[])
    await Bucket(kit.bus, "nodes").put("host.frozen", msgspec.json.encode(frozen))
    done = await hand.deploy(ADDER, "--wait", "0.5")

    assert "frozen did not take it within 0.5 s; it is at 0" in done.said
    assert f"{kit.host.name} runs it" in done.said
    assert done.code == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected FILE or --remove, or --rollback, or --history"),
        (["a.toml", "--history"], "expected FILE or --remove"),
        (["--remove", "a", "--prune"], "--prune removes what a FILE does not name"),
        (["--rollback", "0"], "'0': expected a revision"),
        (["--wait", "-1", "a.toml"], "'-1': expected seconds, 0 to 9999"),
        (["--wait", "soon", "a.toml"], "'soon': expected seconds"),
    ],
)
async def test_wrong_arguments_are_refused(hand: Hand, words: list[str], said: str) -> None:
    done = await hand.run(*words)

    assert done.code == 2
    assert said in done.errors[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--remove", "ader"], "--remove ader: no such actor is deployed; did you mean 'adder'?"),
        (["--rollback"], "revision 1 is the only one; there is nothing to go back to"),
    ],
)
async def test_what_cannot_be_done_is_said(
    kit: Kit, hand: Hand, words: list[str], said: str
) -> None:
    await deploy(kit.bus, adder())
    done = await hand.run(*words)

    assert (done.code, done.errors) == (1, [f"callboard: {said}"])


async def test_edges_follow_at_once() -> None:
    remote = Deployment(name="far", type="actors.child:Remote", kind="remote")
    async with (
        running(master=Master, child=(Child, CALLABLE)) as kit,
        serving(kit.server.url) as edge,
    ):
        body = {"child_id": "c", "wait": 0}
        path = "/api/relay/children/far/take"
        before = await edge.post(path, body)
        await deploy(kit.bus, remote)

        async def is_there() -> bool:
            return (await edge.post(path, body)).status_code == 204

        # Well below the time after which it would look again by itself.
        await until_known(is_there, timeout=3)
        await edge.send("test", to="child")
        await deploy(kit.bus, remove="far")
        removed = await deploy(kit.bus, remove="child")

        async def is_gone() -> bool:
            return (await edge.post(path, body)).status_code == 404

        await until_known(is_gone, timeout=3)
        await until(lambda: kit.host.revision == removed.revision)
        order = {"from": "master", "to": "child", "type": "task", "cmd": "test"}
        refused = await edge.post("/api/relay/send", order)

    assert before.status_code == 404
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_child")
