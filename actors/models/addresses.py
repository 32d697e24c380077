"""Where a provider's endpoints are, given what a deployment calls its URL."""

import httpx

from actors.models.faults import UpstreamFault


def parse(url: str, *, version: str, endpoint: str = "") -> httpx.URL:
    """The base of an API. One without a path gets `version`; one that ends with an endpoint
    loses it. Raises UpstreamFault for what is no URL."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise UpstreamFault("bad_request", "the upstream's url cannot be read") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UpstreamFault("bad_request", "the upstream's url is not of the form http://host…")
    path = parsed.path.rstrip("/")
    if endpoint:
        path = path.removesuffix(endpoint)
    return parsed.copy_with(path=path or version)


def join(base: httpx.URL, path: str, query: str = "") -> httpx.URL:
    """An endpoint below a base."""
    url = base.copy_with(path=base.path.rstrip("/") + path)
    return url.copy_with(query=query.encode()) if query else url
