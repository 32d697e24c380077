"""Keys that somebody might send: the ones that broke things elsewhere, and all others."""

from hypothesis import strategies as st

NOTED = (
    "",
    ".",
    "..",
    "*",
    ">",
    "a.b",
    "a.*",
    "a.>",
    "mail.*.>",
    "$JS.API.STREAM.DELETE.BUS",
    "_INBOX.>",
    " ",
    "a b",
    "a\tb",
    "a\r\nPUB x 1\r\n",
    "Nats-Rollup: all",
    "\x00",
    "a\x00b",
    "\u2028",
    "\ufeff",
    "a" * 64,
    "a" * 65,
    "k" * 10_000,
    "\U0001f600" * 5_000,
    "\U0001f469\u200d\U0001f680",
    "\u0645\u0641\u062a\u0627\u062d",
    "\u202egnp.exe",
    "e\u0301",
    "\u00e9",
    "h-",
    "h-" + "0" * 47,
    "h-" + "0" * 48,
    "h-" + "0" * 49,
    "h-" + "A" * 48,
    "H-" + "0" * 48,
    "%2e",
    "a\n",
)
SURROGATES = ("\ud800", "\udfff", "a\udc00b", "\ud83d" * 300)

_SYMBOLS = st.text(alphabet=".*>$ \t\r\n\x00_-h0aA", max_size=80)
_LOOKS_HASHED = st.from_regex(r"h-[0-9a-f]{48}", fullmatch=True)
_LIKELY = st.from_regex(r"[A-Za-z0-9_-]{1,70}", fullmatch=True)

texts = st.one_of(st.sampled_from(NOTED), st.text(), _SYMBOLS, _LOOKS_HASHED, _LIKELY)
"""Whatever can be said in JSON."""

keys = st.one_of(texts, st.sampled_from(SURROGATES), st.text(st.characters(categories=["Cs"])))
"""The same, and what Python alone can hold."""
