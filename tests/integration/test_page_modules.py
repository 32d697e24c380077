"""The modules of the chat page, run by Node against a real edge."""

import shutil
from pathlib import Path

import pytest

from actors.batch import Batch
from actors.model import Model
from actors.session import Session
from edge.pages import FOLDER
from runtime.testing import running
from tests.integration.completing import SECRET, asking
from tests.integration.test_openai_node import NODE, run, tool


@pytest.mark.promise("AC-20", "AC-47")
async def test_the_page_shows_what_is_said_and_glues_no_attempts(tmp_path: Path) -> None:
    for module in (*FOLDER.glob("*.js"), NODE / "page.mjs"):
        shutil.copy(module, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    models = {name: (Model, {"provider": "echo", "id": name}) for name in ("echo", "echo-two")}
    async with running(session=Session, batch=Batch, **models) as kit, asking(kit) as edge:
        access = {"BASE_URL": edge.url, "API_KEY": SECRET}
        told = await run(tool("node"), "page.mjs", folder=tmp_path, **access)

    assert b"all is well" in told
