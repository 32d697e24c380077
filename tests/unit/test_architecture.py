"""Who may import whom, and how big things may be.

Change a table here in the same commit as the code that needs it.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "schemas": {"schemas"},
    "runtime": {"runtime", "schemas"},
    "actors": {"actors", "runtime", "schemas"},
    "edge": {
        "edge",
        "schemas",
        "runtime.accounts",
        "runtime.ask",
        "runtime.bus",
        "runtime.config",
        "runtime.connection",
        "runtime.deployments",
        "runtime.errors",
        "runtime.keys",
        "runtime.kv",
        "runtime.log",
        "runtime.objects",
        "runtime.packet",
        "runtime.passwords",
        "runtime.pull",
        "runtime.store.storewatch",
        "runtime.streams",
        "runtime.tables",
    },
}
PRODUCT = tuple(ALLOWED)
EVERYTHING = (*PRODUCT, "tests", "bench")

FILE_LINES = 400
FUNCTION_LINES = 40
MEAN_FUNCTION_LINES = 12
KNOWLEDGE_LINES = 3

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """What a file imports, as dotted names; `from a import b` may mean the module `a.b`."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            modules = [f"{module}.{alias.name}" for alias in node.names]
            yield from (name if is_module(name) else module for name in modules)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def functions(path: Path) -> Iterator[tuple[Function, int]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, Function):
            yield node, (node.end_lineno or node.lineno) - node.lineno + 1


def test_imports_flow_downhill() -> None:
    uphill = [
        f"{short(path)} imports {name}"
        for package, allowed in ALLOWED.items()
        for path in files(package)
        for name in imports(path)
        if is_within(name, set(PRODUCT)) and not is_within(name, allowed)
    ]

    assert uphill == []


def test_schemas_import_nothing_but_msgspec_and_the_standard_library() -> None:
    third_party = {"httptools", "httpx", "nats", "starlette", "structlog", "uvicorn", "uvloop"}
    strangers = [
        f"{short(path)} imports {name}"
        for path in files("schemas")
        for name in imports(path)
        if is_within(name, third_party)
    ]

    assert strangers == []


@pytest.mark.promise("AC-22")
def test_one_module_imports_the_nats_client() -> None:
    users = {
        short(path)
        for path in files(*EVERYTHING)
        for name in imports(path)
        if is_within(name, {"nats"}) and not path.is_relative_to(ROOT / "bench")
    }

    assert users == {"runtime/client.py"}


def test_imports_are_absolute() -> None:
    relative = [
        f"{short(path)}:{node.lineno}"
        for path in files(*EVERYTHING)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]

    assert relative == []


def test_data_folders_hold_no_python() -> None:
    # A nats/__init__.py would hide the client, which is a package of the same name.
    assert files("nats", "config") == []


def test_no_test_replaces_what_it_tests() -> None:
    mocked = [
        short(path)
        for path in files("tests")
        for name in imports(path)
        if is_within(name, {"unittest.mock", "mock"})
    ]

    assert mocked == []


def test_no_file_is_too_long_to_read() -> None:
    sizes = {
        short(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in files(*EVERYTHING)
    }

    assert {path: size for path, size in sizes.items() if size > FILE_LINES} == {}


def test_no_function_is_too_long_to_read() -> None:
    too_long = [
        f"{short(path)}:{function.lineno} {function.name} has {size} lines"
        for path in files(*EVERYTHING)
        for function, size in functions(path)
        if size > FUNCTION_LINES
    ]

    assert too_long == []


def test_functions_are_short_on_average() -> None:
    sizes = [size for path in files(*PRODUCT) for _, size in functions(path)]

    assert sum(sizes) / len(sizes) <= MEAN_FUNCTION_LINES


def test_every_module_says_what_it_knows_in_three_lines() -> None:
    """The first paragraph counts; a drawing or a tree may follow it."""
    unclear = {}
    for path in files(*PRODUCT, "bench"):
        knowledge = (ast.get_docstring(parsed(path)) or "").split("\n\n")[0]
        if not 1 <= len(knowledge.splitlines()) <= KNOWLEDGE_LINES:
            unclear[short(path)] = knowledge

    assert unclear == {}


def test_files_have_names_that_say_something() -> None:
    vague = [
        short(path)
        for path in files(*EVERYTHING)
        if path.stem.startswith("base_")
        or NAMES_THAT_SAY_NOTHING & {path.parent.name, *path.stem.split("_")}
    ]

    assert vague == []


def test_no_two_test_files_have_the_same_name() -> None:
    """Without packages, pytest takes one for the other."""
    folders = ("unit", "integration")
    found = Counter(
        path.name for folder in folders for path in (ROOT / "tests" / folder).glob("test_*.py")
    )

    assert [name for name, count in found.items() if count > 1] == []


def test_no_class_is_a_manager() -> None:
    managers = [
        f"{short(path)}:{node.lineno} {node.name}"
        for path in files(*EVERYTHING)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Manager")
    ]

    assert managers == []
