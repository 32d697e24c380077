"""`callboard rules try`: what rules would have done, beside what was done."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from actors.batch import Batch
from actors.session import Session
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.ownership import Customer, Escalate, SetCustomer
from tests.integration.answering import MODELS, Talk
from tests.integration.command import PATIENCE, ROOT

RULES = """
version = "next"

[[rules]]
name = "vip"
kind = "vip"

[[rules]]
name = "refund"
kind = "words"
words = ["refund"]

[[rules]]
name = "no answer"
kind = "failures"
threshold = 2
"""


async def try_rules(kit: Kit, file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime", "rules", "try", str(file), *words]
    return await asyncio.to_thread(
        subprocess.run,
        [*command, "--nats", kit.server.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


async def record(kit: Kit) -> None:
    """Four conversations: of a refund, of a person who is asked for, of a VIP, of nothing."""
    talks = {name: Talk(kit, name) for name in ("money", "asks", "known", "calm")}
    await talks["money"].open("one", text="hello", team="support")
    await talks["money"].open("one", text="I want a REFUND", team="support")
    await talks["asks"].open("one", text="转人工", team="support")
    await talks["known"].open("one", text="hello", team="support")
    await talks["calm"].open("one", text="hello", team="support")
    await kit.ask(Address("session", "calm"), Escalate(details="please"))
    await kit.settled()
    await kit.ask(Address("session", "known"), SetCustomer(customer=Customer(vip=True)))


@pytest.mark.promise("FD-40", "FD-42")
async def test_rules_are_tried_on_what_is_recorded_and_compared_with_what_happened(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    async with running(session=Session, batch=Batch, **MODELS) as kit:
        await record(kit)
        shown = await try_rules(kit, file)
        one = await try_rules(kit, file, "--conversation", "money", "--json")
        nothing = await try_rules(kit, file, "--since", "1ms")
        file.write_text(RULES + "threshhold = 2\n")
        wrong = await try_rules(kit, file)
        lines = shown.stdout.splitlines()

    assert lines[:4] == [
        "rules next, tried on 4 conversations with 5 messages of customers, of the last 7d",
        "a person would have been called in 2 (50.0 %): refund 1, vip 1",
        "a person was called in 2 (50.0 %): keywords 1, manual 1",
        "in both: 0; only by these rules: 2; only then: 2",
    ]
    rows = {line.split()[2]: line.split()[3:] for line in lines[6:]}
    assert rows["money"] == ["refund", "-", "I", "want", "a", "REFUND"]
    assert rows["asks"] == ["-", "keywords", "转人工"]
    assert rows["known"] == ["vip", "-", "hello"]
    assert rows["calm"][:2] == ["-", "manual"]
    found = json.loads(one.stdout)
    assert (found["conversations"], found["messages"]) == (1, 2)
    assert found["cases"][0]["would"]["rule"] == "refund"
    assert nothing.stdout.startswith("rules next, tried on 0 conversations")
    assert (wrong.returncode, "did you mean 'threshold'?" in wrong.stderr) == (78, True)
