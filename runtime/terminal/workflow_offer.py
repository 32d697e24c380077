"""The workflow at Coze that the environment names, by the names that Fiido's service has used.

Nothing is written anywhere; the private key stays in its variable or file.
"""

from collections.abc import Mapping
from typing import Any

from runtime.errors import ConfigError

NAME = "coze"
CONCURRENCY = 100
"""Answers at once on each host; as many connections are pooled."""
BASE = "https://api.coze.com"

WORKFLOW, APP, CLIENT = "COZE_WORKFLOW_ID", "COZE_APP_ID", "COZE_OAUTH_CLIENT_ID"
KEY_ID = "COZE_OAUTH_PUBLIC_KEY_ID"
KEYS = ("COZE_OAUTH_PRIVATE_KEY", "COZE_OAUTH_PRIVATE_KEY_FILE")
"""The private key in PEM, or the name of a file that holds it; either may be in either."""
URL = "COZE_API_BASE"
VARIABLES = (WORKFLOW, APP, CLIENT, KEY_ID, *KEYS, URL)


def workflow_options(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The options of a model that is this workflow; None if the environment names none.

    Raises ConfigError if it says a part only of what is needed.
    """
    said = {name: environ.get(name, "").strip() for name in VARIABLES}
    if not any(said[name] for name in (WORKFLOW, APP, CLIENT)):
        return None
    keys = [name for name in KEYS if said[name]]
    missing = [name for name in (WORKFLOW, APP, CLIENT, KEY_ID) if not said[name]]
    if not keys:
        missing.append(" or ".join(KEYS))
    if missing:
        given = next(name for name in (WORKFLOW, APP, CLIENT) if said[name])
        raise ConfigError(
            f"{given} is set, so that a workflow at Coze becomes the model {NAME!r}; set"
            f" {', '.join(missing)} as well, or none of them"
        )
    return {
        "provider": "coze",
        "model": said[WORKFLOW],
        "id": NAME,
        "owned_by": "coze",
        "extra": {"app_id": said[APP]},
        "dialect": {"client": said[CLIENT], "key_id": said[KEY_ID]},
        "upstreams": [{"url": said[URL] or BASE, "key_env": keys[0]}],
    }
