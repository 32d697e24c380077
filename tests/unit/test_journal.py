"""What a remote child remembers, and how that file may be found."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors.journal import KEPT, Journal, JournalFault


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "child_worker_state.json"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


@pytest.mark.promise("CB-36", "CB-39")
def test_what_was_executed_is_found_again_after_a_restart(journal: Journal, path: Path) -> None:
    journal.execute("t_1", "done", {"字": 1}, "lease")
    journal.execute("t_2", "failed", {"error": "x"}, "")
    journal.settle("t_2", "processed")
    journal.close()
    again = Journal(path)
    first, second = again.find("t_1"), again.find("t_2")
    unsettled = again.unsettled()
    again.close()

    assert first is not None
    assert second is not None
    assert (first.status, first.said, first.result) == ("executed", "done", {"字": 1})
    assert (second.status, second.result) == ("processed", None)
    assert unsettled == ["t_1"]


def test_the_file_is_readable_and_holds_what_the_relay_s_own_workers_wrote(path: Path) -> None:
    path.write_text('{"t_1": {"status": "processed", "ts": "2025-10-22 10:00:00"}}')
    journal = Journal(path)
    known = journal.find("t_1")
    journal.execute("t_2", "done", None, "")
    journal.close()
    stored = msgspec.json.decode(path.read_bytes())

    assert known is not None
    assert stored["t_1"] == {"status": "processed", "ts": "2025-10-22 10:00:00"}
    assert list(stored) == ["t_1", "t_2"]
    assert "\n" in path.read_text()


def test_only_so_many_settled_tasks_are_kept_and_no_unsettled_one_is_lost(
    journal: Journal, path: Path
) -> None:
    many = {f"t_{n}": {"status": "processed", "ts": ""} for n in range(KEPT + 5)}
    journal.close()
    path.write_bytes(msgspec.json.encode({"open": {"status": "executed", "ts": ""}, **many}))
    journal = Journal(path)
    journal.execute("last", "done", None, "")
    journal.settle("last", "processed")
    journal.close()
    stored = msgspec.json.decode(path.read_bytes())

    assert len(stored) == KEPT + 1
    assert "open" in stored
    assert "last" in stored
    assert "t_5" not in stored


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"t_1": {"status": "odd"}}', b"\xff"])
def test_a_file_that_cannot_be_read_is_left_alone_and_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalFault, match="move it away to start afresh"):
        Journal(path)

    assert path.read_bytes() == content


def test_a_file_is_held_by_one_child_at_a_time(journal: Journal, path: Path) -> None:
    code = f"import pathlib, actors.journal as a; a.Journal(pathlib.Path({str(path)!r}))"
    second = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )

    assert second.returncode == 1
    assert "is in use by another child; give each a file of its own" in second.stderr


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalFault, match="No such file or directory; name another file"):
        Journal(tmp_path / "nowhere" / "state.json")


def test_a_crash_while_writing_leaves_the_last_state(journal: Journal, path: Path) -> None:
    journal.execute("t_1", "done", None, "")
    path.with_name(f"{path.name}.new").write_bytes(b'{"half')
    journal.close()
    again = Journal(path)
    unsettled = again.unsettled()
    again.close()

    assert unsettled == ["t_1"]


def test_who_we_are_is_made_up_once_for_each_file(journal: Journal, path: Path) -> None:
    first = journal.identify("far")
    journal.execute("t_1", "done", None, "")
    journal.close()
    again = Journal(path)
    second, tasks = again.identify("far"), again.unsettled()
    other = again.identify("near")
    again.close()
    elsewhere = Journal(path.with_name("other.json"))
    third = elsewhere.identify("far")
    elsewhere.close()

    assert re.fullmatch("far-[0-9a-f]{8}", first)
    assert second == first
    assert other.startswith("near-")
    assert third != first
    assert tasks == ["t_1"]
