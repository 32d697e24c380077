"""The bytes of a compressed body, in pieces of a bounded size: a kilobyte may hold a megabyte."""

import zlib
from collections.abc import AsyncIterator

ENCODINGS = frozenset({"gzip", "deflate"})
PIECE = 64 * 1024
EITHER_HEADER = 32 + zlib.MAX_WBITS
"""Gzip's or zlib's, as zlib has it: some servers call one by the other's name."""


async def inflate(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What is in chunks of a body; raises zlib.error for what is not compressed."""
    inflater = zlib.decompressobj(EITHER_HEADER)
    async for chunk in chunks:
        piece = inflater.decompress(chunk, PIECE)
        while piece:
            yield piece
            piece = inflater.decompress(inflater.unconsumed_tail, PIECE)
