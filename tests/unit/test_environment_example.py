"""`.env.example` names what there is to set: nothing else, nothing secret, and all that must be."""

import re
from pathlib import Path

import msgspec
import pytest

from runtime.config import UNUSED
from runtime.tables import Config, HostTable
from runtime.terminal import workflow_offer
from runtime.terminal.commands import _names_to_run
from runtime.terminal.desk_environment import HOURS, MAIL, TIMEZONE, named_mailer, read_hours
from runtime.terminal.offers import SERVICES, named_services
from runtime.terminal.rules_environment import RULES, read_rules
from schemas.regulator import Ruleset

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
COMPOSITION = (ROOT / "compose.yaml").read_text(encoding="utf-8")
FILE = "COZE_OAUTH_PRIVATE_KEY_FILE"
"""Of the machine that it is set on, so no container is told of it."""
VARIABLE = re.compile(r"^(#?)([A-Z][A-Z0-9_]*)=(\S*)$", re.MULTILINE)


def shown() -> dict[str, str]:
    """Every variable of the example, set or commented out, with its value."""
    return {name: value for _, name, value in VARIABLE.findall(EXAMPLE)}


@pytest.mark.promise("AC-24", "AC-25", "AC-26", "AC-27", "AC-30")
def test_the_example_names_what_the_composition_and_the_old_system_take() -> None:
    composed = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSITION))
    services = {
        f"{prefix}_{what}"
        for prefix, _, _ in SERVICES.values()
        for what in ("SERVICE_URL", "MODEL", "API_KEY")
    }

    services |= set(workflow_offer.VARIABLES) - {FILE}
    passed_on = set(re.findall(r"^ +([A-Z_]+):$", COMPOSITION, re.MULTILINE))

    desk = {*HOURS, TIMEZONE, *MAIL, *RULES}

    assert passed_on == services | desk
    assert composed <= shown().keys()
    assert shown().keys() == composed | services | desk | set(UNUSED) | {"LOG_LEVEL", FILE}


def test_no_secret_has_a_value_and_what_must_be_set_is_not_commented_out() -> None:
    secrets = [name for name in shown() if re.search("PASSWORD|KEY(?!WORDS)|SECRET|TOKEN", name)]
    required = set(re.findall(r"\$\{([A-Z0-9_]+):\?", COMPOSITION))
    active = {name for hidden, name, _ in VARIABLE.findall(EXAMPLE) if not hidden}

    assert {name: shown()[name] for name in secrets if shown()[name]} == {}
    assert required <= active


@pytest.mark.promise("AC-24", "AC-28", "AC-29")
def test_the_endpoints_of_the_example_become_models() -> None:
    active = {name: value for hidden, name, value in VARIABLE.findall(EXAMPLE) if not hidden}

    assert [one.name for one in named_services(active, ())] == ["deepseek", "qwen"]


def test_a_host_that_runs_some_actors_runs_the_services_of_its_environment_too() -> None:
    services = named_services({"DEEPSEEK_SERVICE_URL": "http://127.0.0.1:9/v1"}, ())

    assert _names_to_run(Config(host=HostTable(run=["child"])), services) == ["child", "deepseek"]
    assert _names_to_run(Config(), services) == []


@pytest.mark.promise("FD-60", "FD-61")
def test_the_hours_and_the_mailer_of_the_example_can_be() -> None:
    named = shown()

    assert read_hours({name: named[name] for name in (*HOURS, TIMEZONE)}) is not None
    assert [one.name for one in named_mailer(named, ())] == ["mailer"]


@pytest.mark.promise("FD-56", "FD-57", "FD-59")
def test_the_rules_of_the_example_are_those_that_are_shipped() -> None:
    found = read_rules({name: shown()[name] for name in RULES})

    assert found is not None
    assert msgspec.convert(found, Ruleset) == Ruleset()


def test_a_copy_of_the_example_is_never_committed() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
