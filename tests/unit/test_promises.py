"""Every promise has an id in docs/promises.md, and tests name the ids they prove."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMISES = ROOT / "docs" / "promises.md"
HOW_MANY = {"CB": 48, "AC": 53, "AG": 96, "FD": 117}


def promised() -> list[str]:
    return re.findall(r"^- \*\*([A-Z]{2}-\d+)\*\* \S", PROMISES.read_text(encoding="utf-8"), re.M)


def markers(path: Path) -> Iterator[tuple[str, str]]:
    """Each id in a `promise(...)` marker of a file, with where it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr == "promise":
            where = f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
            for argument in node.args:
                yield ast.unparse(argument).strip("'"), where


def named() -> dict[str, list[str]]:
    """The ids that tests name, each with the places where they do."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for promise, where in markers(path):
            found.setdefault(promise, []).append(where)
    return found


def unnamed(prefix: str) -> list[str]:
    """The promises of one system that no test names."""
    known = named()
    return [each for each in promised() if each.startswith(f"{prefix}-") and each not in known]


def test_every_promise_is_listed_once_and_in_order() -> None:
    expected = [f"{prefix}-{n:02}" for prefix, last in HOW_MANY.items() for n in range(1, last + 1)]

    assert promised() == expected


def test_tests_name_only_promises_that_exist() -> None:
    known = set(promised())

    assert {each: where for each, where in named().items() if each not in known} == {}


def test_decisions_are_numbered_without_a_gap_and_all_that_are_named_exist() -> None:
    text = PROMISES.read_text(encoding="utf-8")
    decided = re.findall(r"^\| (D\d+) \|", text, re.M)

    assert decided == [f"D{n}" for n in range(1, 25)]
    assert set(re.findall(r"\bD\d+\b", text)) <= set(decided)


def test_every_promise_of_the_conversation_bus_is_proved_by_a_test() -> None:
    assert unnamed("CB") == []
