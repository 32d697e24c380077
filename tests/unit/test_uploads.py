"""Forms with files: what is taken, what is refused and how, and that a refusal leaves nothing."""

import contextlib

import pytest

import edge.uploads as uploads_module
from edge.problem import Refusal
from edge.uploads import TakenForm
from schemas.model import KINDS, FileRef
from tests.unit.parcels import (
    BOUNDARY,
    FIELDS,
    FILES,
    GIF,
    GZIP,
    HTML,
    JPEG,
    PDF,
    SVG,
    ZIP,
    Shelf,
    form,
    part,
    png,
    posted,
    typed,
    uploads,
)

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + b"\x00" * 20
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 " + b"\x00" * 20
MP3 = b"ID3\x04\x00" + b"\x00" * 20
FLAC = b"fLaC\x00\x00\x00\x22" + b"\x00" * 20
OGG = b"OggS\x00\x02" + b"\x00" * 20
TEXT = "Zwölf Boxkämpfer 你好 \U0001f600\n".encode()


async def take(
    body: bytes | list[bytes], shelf: Shelf | None = None, *, media: str = "", **limits: object
) -> TakenForm:
    """Read a form to its end."""
    content_type = media or f"multipart/form-data; boundary={BOUNDARY}"
    request = posted(body, content_type=content_type)
    async with uploads(shelf or Shelf(), **limits).taking(request, FIELDS, FILES, "me") as taken:
        return taken


async def refusal(body: bytes | list[bytes], shelf: Shelf | None = None, **rest: object) -> Refusal:
    with pytest.raises(Refusal) as found:
        await take(body, shelf, **rest)  # type: ignore[arg-type]  # options of `take`
    return found.value


async def refused_file(content: bytes, filename: str = "a", media: str = "") -> Refusal:
    shelf = Shelf()
    good = part(FILES, png(), filename="first.png")
    bad = part(FILES, content, filename=filename, more=typed(media) if media else "")
    found = await refusal(form(good, bad), shelf)
    assert shelf.files == {}, "what was stored before is taken away again"
    return found


# -- what is taken ---------------------------------------------------------------------------


@pytest.mark.promise("AC-34", "AC-36")
@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
async def test_a_form_is_the_same_in_whatever_pieces_it_comes(size: int) -> None:
    whole = form(part("prompt", "你好"), part("files", png(), filename="a.png"), part("model", "x"))
    shelf = Shelf()

    taken = await take([whole[at : at + size] for at in range(0, len(whole), size)], shelf)

    assert taken.fields == {"prompt": "你好", "model": "x"}
    ref, content = shelf.only()
    assert content == png()
    assert ref == FileRef(id=ref.id, name="a.png", media="image/png", size=len(png()))
    assert [each.ref for each in taken.files] == [ref]
    assert shelf.files[ref.id][2] == "me"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (png(), "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (WEBP, "image/webp"),
        (PDF, "application/pdf"),
        (WAV, "audio/wav"),
        (MP3, "audio/mpeg"),
        (FLAC, "audio/flac"),
        (OGG, "audio/ogg"),
        (TEXT, "text/plain"),
        (b"%", "text/plain"),
        (TEXT * 5000, "text/plain"),
    ],
)
async def test_the_kind_of_a_file_is_told_by_its_content(content: bytes, kind: str) -> None:
    shelf = Shelf()

    await take(form(part(FILES, content, filename="said-to-be.exe")), shelf)

    assert shelf.only()[0].media == kind
    assert kind in KINDS


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\x", "x"),
        ("C:\\x", "x"),
        ("/abs", "abs"),
        ("a\x00.png", "a.png"),
        ("a" * 1000, "a" * 255),
        ("x\u202egnp.exe", "xgnp.exe"),
        ("con.png", "con.png"),
        ("", ""),
        ("..", ""),
        ("<img onerror>", "<img onerror>"),
        ("e\u0301.png", "\u00e9.png"),
    ],
)
async def test_of_a_files_name_only_what_can_be_shown_is_kept(name: str, kept: str) -> None:
    shelf = Shelf()

    await take(form(part(FILES, png(), filename=name)), shelf)

    ref, _ = shelf.only()
    assert ref.name == kept


async def test_an_encoded_or_repeated_filename_names_no_path() -> None:
    encoded = b"Content-Disposition: form-data; name=files; filename*=UTF-8''%2e%2e%2f\r\n\r\n"
    twice = b'Content-Disposition: form-data; name="files"; filename="a"; filename="../b"\r\n\r\n'
    shelf = Shelf()

    found = await refusal(form(encoded + png()), shelf)
    await take(form(twice + png()), shelf)

    assert (found.status, found.code) == (422, "invalid_field")
    assert shelf.only()[0].name in ("a", "b")


async def test_a_browsers_empty_choice_of_files_is_no_file() -> None:
    chosen = part(FILES, "", filename="", more=typed("application/octet-stream"))

    taken = await take(form(part("prompt", "hello"), chosen))

    assert taken.files == []


async def test_a_file_passes_piece_by_piece() -> None:
    content = png() + b"\x00" * 3_000_000
    whole = form(part(FILES, content, filename="a.png"))
    shelf = Shelf()

    await take([whole[at : at + 65536] for at in range(0, len(whole), 65536)], shelf)

    assert shelf.only()[1] == content
    assert shelf.most_pieces <= 65536


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "; boundary=",
        '; boundary=""',
        f"; boundary={'x' * 71}",
        f"; boundary={'x' * 300}",
        "; boundary=a\r\nb",
        '; boundary="frontier',
        f"; boundary={BOUNDARY}; boundary={BOUNDARY}",
        f"; boundary=other; Boundary={BOUNDARY}",
        "; boundary=no-such",
        '; boundary="bad\\"quote"',
    ],
)
async def test_a_form_without_one_good_boundary_is_refused(parameters: str) -> None:
    media = f"multipart/form-data{parameters}"

    found = await refusal(form(part("prompt", "x")), media=media)

    assert (found.status, found.code) == (400, "invalid_multipart")


WHOLE = form(part("prompt", "the whole of it"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        WHOLE[:30],
        WHOLE[:70],
        WHOLE[:-6],
        WHOLE[:-4],
        WHOLE[: WHOLE.index(b"\r\n\r\n") + 4],
        b"x" * 100_000 + b"\r\n" + WHOLE,
        WHOLE + b"x" * 200_000,
        WHOLE.replace(b"\r\n", b"\n"),
        form(b"no headers at all"),
        form(b'Content-Disposition: attachment; name="prompt"\r\n\r\nx'),
        form(b"Content-Disposition: form-data\r\n\r\nx"),
        form(b"\r\nx"),
        form(part("prompt", "x", more=typed("multipart/mixed; boundary=inner"))),
        form(part("prompt", "x", more="Content-Length: 5\r\n")),
        form(b'Content-Disposition: form-data; name="pr\xff"\r\n\r\nx'),
    ],
)
async def test_what_is_no_whole_form_is_refused(body: bytes) -> None:
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]

    found = await refusal(pieces)

    assert (found.status, found.code) == (400, "invalid_multipart")


async def test_line_ends_after_the_form_are_nobodys_fault() -> None:
    taken = await take([WHOLE[:-2], b"\r", b"\n", b"\r\n"])

    assert taken.fields == {"prompt": "the whole of it"}


async def test_a_form_whose_client_leaves_is_taken_back() -> None:
    shelf = Shelf()
    request = posted(form(part(FILES, png(), filename="a"), part("prompt", "x"))[:-10], left=True)

    with pytest.raises(Refusal) as found:
        async with uploads(shelf).taking(request, FIELDS, FILES, "me"):
            pytest.fail("it is not whole")

    assert (found.value.status, found.value.code) == (400, "body_incomplete")
    assert (shelf.files, len(shelf.deleted)) == ({}, 1)


NO_FILE = part(FILES, "", filename="")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (form(*[part(FILES, png(), filename="a")] * 11), "too_many_files"),
        (form(*[NO_FILE] * 1001), "too_many_parts"),
        (form(*[NO_FILE] * 100_000), "too_many_parts"),
        (form(part("prompt", "x" * 65_000)), "field_too_large"),
        (form(part("prompt", "x" * 2_000_000)), "field_too_large"),
        (form(part("p" * 100, "x")), "part_too_large"),
        (form(part("prompt", "x", more=f"X-Much: {'y' * 5000}\r\n")), "part_too_large"),
        (form(part("prompt", "x", more="X-Much: y\r\n" * 9)), "too_many_parts"),
        (form(part(FILES, png() + b"0" * 5000, filename="a")), "file_too_large"),
        (form(*[part(FILES, png() + b"0" * 3900, filename="a")] * 5), "files_too_large"),
    ],
)
async def test_what_is_too_much_is_refused_and_leaves_nothing(body: bytes, code: str) -> None:
    shelf = Shelf()
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]

    found = await refusal(pieces, shelf, most_bytes=4096, most_together=16 * 1024)

    assert (found.status, found.code) == (413, code)
    assert shelf.files == {}


async def test_a_form_that_says_it_is_too_long_is_refused_before_it_is_read() -> None:
    declared = posted(b"", content_length=str(10**9))

    with pytest.raises(Refusal) as found:
        async with uploads(Shelf()).taking(declared, FIELDS, FILES, "me"):
            pytest.fail("it is too long")

    assert (found.value.status, found.value.code) == (413, "body_too_large")


async def test_only_so_many_forms_are_read_at_the_same_time() -> None:
    shelf = Shelf()
    door = uploads(shelf)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(uploads_module.MOST_AT_ONCE):
            request = posted(WHOLE)
            await stack.enter_async_context(door.taking(request, FIELDS, FILES, "me"))
        with pytest.raises(Refusal) as found:
            async with door.taking(posted(WHOLE), FIELDS, FILES, "me"):
                pytest.fail("there is no room")

    assert (found.value.status, found.value.code) == (503, "too_many_uploads")


@pytest.mark.parametrize(
    ("content", "media"),
    [
        (ZIP, "application/zip"),
        (ZIP, ""),
        (GZIP, "application/gzip"),
        (b"MZ\x90\x00\x03", ""),
        (b"\x7fELF\x02\x01", ""),
        (HTML, "image/png"),
        (SVG, "image/svg+xml"),
        (png(), "text/plain"),
        (png(), "audio/wav"),
        (JPEG, "application/pdf"),
        (TEXT, "application/zip"),
        (b"\xff\xd8", "image/jpeg"),
        (png()[:10], "image/png"),
        (b"", "image/png"),
        (TEXT * 100 + b"\x00\x01\x02", ""),
        (TEXT + b"\xff", ""),
    ],
)
async def test_a_file_of_a_kind_that_is_not_taken_is_refused(content: bytes, media: str) -> None:
    found = await refused_file(content, "a\x1b[31m.png", media)

    assert (found.status, found.code) == (415, "unsupported_file_type")
    assert found.members["errors"][0]["pointer"] == "/files"
    assert "\x1b" not in found.detail


async def test_a_picture_that_unpacks_to_too_much_is_refused() -> None:
    found = await refused_file(png(65_535, 65_535))

    assert (found.status, found.code) == (413, "too_large_unpacked")


@pytest.mark.parametrize("header", ["Content-Encoding: gzip", "Content-Transfer-Encoding: base64"])
async def test_a_part_that_is_encoded_is_refused(header: str) -> None:
    found = await refusal(form(part(FILES, GZIP, filename="a", more=f"{header}\r\n")))

    assert (found.status, found.code) == (415, "unsupported_media_type")


async def test_only_kinds_that_are_configured_are_taken() -> None:
    body = form(part(FILES, png(), filename="a.png"))

    found = await refusal(body, kinds=["application/pdf"])

    assert found.code == "unsupported_file_type"
    assert "image/png, expected one of application/pdf" in found.detail


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([part("prompt", "a"), part("prompt", "b")], "prompt"),
        ([part("prompt", b"\xff\xfe")], "prompt"),
        ([part("prompt", "a\0b")], "prompt"),
        ([part("prompt", "a", filename="prompt.txt")], "prompt"),
        ([part("files", "text")], "files"),
        ([part("polcy", "all")], "'polcy'"),
    ],
)
async def test_a_field_that_is_not_taken_is_named(parts: list[bytes], field: str) -> None:
    found = await refusal(form(*parts))

    assert (found.status, found.code) == (422, "invalid_field")
    assert found.members["errors"][0]["pointer"] == f"/{field}"
    assert found.detail.startswith(field)
