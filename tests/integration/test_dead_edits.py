"""Dead letters that are mended before they are sent, and those that are jobs."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from runtime.testing import Kit, running
from tests.integration.counter import HERE, Counter, Get, StartTwice, failures
from tests.integration.desk import Moody, add, dead, fail, letter_of, moods, read_json


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    failures.clear()
    moods.clear()
    async with running(counter=Counter, doubler=Moody) as kit:
        yield kit


async def test_an_edited_letter_is_sent_as_edited(kit: Kit) -> None:
    letter = await fail(kit)
    done = dead(kit, "edit", letter, "--set", "data.times=0")
    mark = await kit.bus.last(f"dead.SETTLED.{letter}")
    assert mark is not None

    assert done.returncode == 0
    assert f"letter {letter} edited" in done.stdout
    assert (await kit.ask(HERE, Get())).n == 1000
    assert b'"edited"' in mark.data


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("data.times=many", "cannot read the edited message: Expected `int`, got `str`"),
        ("data.type=counter.unknown", "cannot read the edited message"),
        ("subject=b", "is for 'b', expected 'a'"),
        ("time=7", "is no envelope"),
        ("data.nothing.here=1", "there is no such place"),
        ("data", "expected PATH=VALUE"),
    ],
)
async def test_an_edit_that_nobody_could_read_is_refused(
    kit: Kit, setting: str, complaint: str
) -> None:
    letter = await fail(kit)
    done = dead(kit, "edit", letter, "--set", setting)

    assert done.returncode == 1
    assert complaint in done.stderr
    assert len(read_json(dead(kit, "list", "--json"))) == 1


async def test_a_letter_is_edited_in_the_editor_of_the_operator(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = await fail(kit)
    script = tmp_path / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[2])\n"
        "path.write_text(path.read_text().replace(*sys.argv[1].split('/')))\n"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script} a/a")
    unchanged = dead(kit, "edit", letter)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script} specversion/version")
    broken = dead(kit, "edit", letter)
    monkeypatch.setenv("EDITOR", f'{sys.executable} {script} \'"times": 5/"times": 0\'')
    done = dead(kit, "edit", letter)
    kept = Path(broken.stderr.partition("what you wrote is in ")[2].partition(",")[0])
    text = kept.read_text()
    kept.unlink()

    assert (unchanged.returncode, broken.returncode, done.returncode) == (1, 1, 0)
    assert "nothing was changed" in unchanged.stderr
    assert '"version"' in text
    assert (await kit.ask(HERE, Get())).n == 1000


async def test_garbage_can_be_made_a_message_from_a_file(kit: Kit, tmp_path: Path) -> None:
    await kit.bus.publish("mail.counter.a", b"garbage")
    letter = await letter_of(kit)
    (tmp_path / "mended.json").write_bytes(add("a"))
    unset = dead(kit, "edit", letter, "--set", "data.n=1")
    done = dead(kit, "edit", letter, "--file", tmp_path / "mended.json")

    assert "holds no JSON" in unset.stderr
    assert done.returncode == 0
    assert (await kit.ask(HERE, Get())).n == 1


async def test_a_replayed_job_has_a_run_of_its_own_and_its_result_goes_to_the_sender(
    kit: Kit,
) -> None:
    moods["mood"] = "bad"
    await kit.ask(HERE, StartTwice())
    letter = await letter_of(kit)
    await kit.settled()
    moods.clear()
    done = dead(kit, "replay", letter)
    await kit.settled()
    said = (await kit.ask(HERE, Get())).said

    assert done.returncode == 0
    assert said == ["failed NOT_TODAY: ask again", "doubled 42"]


async def test_a_job_whose_run_is_still_open_goes_on_under_it(kit: Kit) -> None:
    await kit.stop_host()
    run, job = "r" * 32, msgspec.json.decode(add("a"))
    job |= {"source": "counter/a", "type": "doubler.double", "runid": run}
    job["data"] = {"type": "doubler.double", "n": "not a number"}
    await kit.bus.publish(f"run.{run}", b'{"job":"doubler/a"}')
    await kit.bus.publish("work.doubler.1.a", msgspec.json.encode(job))
    await kit.start_host()
    letter = await letter_of(kit)
    done = dead(kit, "edit", letter, "--set", "data.n=4")
    await kit.settled()
    record = await kit.bus.last(f"run.{run}")
    assert record is not None

    assert done.returncode == 0
    assert b"finished" in record.data
    assert (await kit.ask(HERE, Get())).said == ["doubled 8"]


async def test_a_job_that_is_not_wanted_any_more_is_not_done_by_a_replay(kit: Kit) -> None:
    job = msgspec.json.decode(add("a"))
    job |= {"type": "doubler.double", "runid": "r" * 32, "expires": "2026-01-01T00:00:00Z"}
    job["data"] = {"type": "doubler.double", "n": "x"}
    await kit.bus.publish("work.doubler.1.a", msgspec.json.encode(job))
    letter = await letter_of(kit)
    done = dead(kit, "replay", letter)

    assert done.returncode == 1
    assert "--set expires=null" in done.stderr
