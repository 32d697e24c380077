"""Every fault in docs/faults.md has a test that exists, or a reason why it has none."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "docs" / "faults.md"
TEST = re.compile(r"`(tests/[a-z_/]+\.py)::(test_\w+)`")
SEE = re.compile(r"\b[FP]\d+\b")


def listed() -> dict[str, str]:
    """What is said of each fault, by its id; one that shares the lines of another is with it."""
    entries: dict[str, str] = {}
    for entry in re.split(r"^(?=- \*\*)", FAULTS.read_text(encoding="utf-8"), flags=re.M)[1:]:
        text = entry.split("\n\n")[0]
        entries |= dict.fromkeys(re.findall(r"\*\*([FP]\d+)\*\*", text), text)
    return entries


@cache
def defined_in(path: str) -> set[str]:
    file = ROOT / path
    if not file.is_file():
        return set()
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, functions)}


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(FAULTS.read_text(encoding="utf-8"))
    missing = [f"{path}::{name}" for path, name in named if name not in defined_in(path)]

    assert named
    assert missing == []


def test_every_fault_has_a_test_or_a_reason_or_is_another_one() -> None:
    known = listed()
    open_ = {
        fault: text
        for fault, text in known.items()
        if not TEST.search(text)
        and "No test" not in text
        and not any(other in known for other in SEE.findall(text) if other != fault)
    }

    assert open_ == {}


def test_no_fault_is_listed_twice_and_no_trigger_is_missing() -> None:
    ids = re.findall(r"\*\*([FP]\d+)\*\*", FAULTS.read_text(encoding="utf-8"))

    assert len(ids) == len(set(ids))
    assert [each for each in ids if each.startswith("P")] == [f"P{n}" for n in range(1, 13)]
