"""The points file: what is read, in whatever pieces it comes, and which line is named when it is wrong."""

import asyncio
import csv
import io
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashsale.csvfile import BLOCK_MAX_BYTES, LINE_MAX_BYTES, rows_of
from flashsale.domain import MEMBER_MAX
from flashsale.errors import Refused
from flashsale.points import POINTS_MAX, PointsCsv

HEADER = b"member_id,points\n"


def read(file: bytes, piece_bytes: int | None = BLOCK_MAX_BYTES) -> list[tuple[int, int, int]]:
    """The rows (line, member, points) of a file fed in pieces of that size; None: line by line."""
    parser = PointsCsv()
    if piece_bytes is None:
        cut = file.splitlines(keepends=True)
    else:
        cut = [file[at : at + piece_bytes] for at in range(0, len(file), piece_bytes)]
    rows = b"".join([*map(parser.feed, cut), parser.finish()]).decode().splitlines()
    return [(int(line), int(member), int(points)) for line, member, points in (row.split(",") for row in rows)]


def refusal(file: bytes, piece_bytes: int | None = BLOCK_MAX_BYTES) -> Refused:
    """How a file is refused."""
    with pytest.raises(Refused) as caught:
        read(file, piece_bytes)
    return caught.value


@pytest.mark.parametrize(
    "file",
    [
        b"member_id,points\n7,100\n8,0\n",
        b"member_id,points\r\n7,100\r\n8,0\r\n",
        b"member_id,points\n7,100\n8,0",
        b"\xef\xbb\xbfmember_id,points\n7,100\n8,0\n",
        b"member_id,points,registered_at\n7,100,2011-01-11T19:50:40.620Z\n8,0,\n",
        "member_id,points,名\n7,100,小米\n8,0,é\n".encode(),
        b'"member_id","points"\n"7","100"\n8,"0"\n',
        b"member_id,points\n007,0100\n8,00\n",
        b'member_id,points,note\n7,100,"a, ""b"""\n8,0,x\n',
        b"member_id,points\n7,100,more,than,the,header\n8,0\n",
        b"member_id,points\n7,100\r\n8,0\n\n\r\n\n",
    ],
)
@pytest.mark.parametrize("piece_bytes", [None, 1, 7, BLOCK_MAX_BYTES])
def test_a_file_is_read_whatever_its_line_ends_quotes_and_further_columns(file: bytes, piece_bytes: int | None) -> None:
    """LF, CRLF, BOM, quotes, zeros in front, further columns, empty lines at the end: two members all the same."""
    assert read(file, piece_bytes) == [(2, 7, 100), (3, 8, 0)]


def test_a_quoted_line_break_counts_as_a_line() -> None:
    """The numbers are those that an editor shows."""
    file = b'member_id,points,note\n7,1,"two\nlines"\n8,2,x\n9,3,"\r\n6,6\n"\n10,4,\n'
    for piece_bytes in (None, 1, 5, BLOCK_MAX_BYTES):
        assert read(file, piece_bytes) == [(2, 7, 1), (4, 8, 2), (5, 9, 3), (8, 10, 4)]


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        (b"", 1, "the file is empty"),
        (b"\n", 1, "the header must begin with `member_id,points`"),
        (b"id,points\n1,2\n", 1, "it is 'id,points'"),
        (b"points,member_id\n1,2\n", 1, "the header must begin"),
        (b"member_id;points\n1;2\n", 1, "with a comma"),
        (b"7,100\n", 1, "the header must begin"),
        (b"member_id\n1\n", 1, "the header must begin"),
        (b"member_id,points", 2, "there is no member in the file"),
        (HEADER, 2, "there is no member in the file"),
        (HEADER + b"\n\n", 2, "there is no member in the file"),
        (HEADER + b"1,2\nseven,2\n", 3, "the member id 'seven' is not a whole number"),
        (HEADER + b"1,2\n7,many\n", 3, "the number of points 'many' is not a whole number"),
        (HEADER + b"1,2\n7,\n", 3, "the number of points '' is not a whole number"),
        (HEADER + b"1,2\n7,1.5\n", 3, "'1.5' is not a whole number"),
        (HEADER + b"1,2\n7,1e3\n", 3, "'1e3' is not a whole number"),
        (HEADER + b"1,2\n7, 5\n", 3, "' 5' is not a whole number"),
        (HEADER + b"1,2\n7,+5\n", 3, "'+5' is not a whole number"),
        (HEADER + "1,2\n7,٣\n".encode(), 3, "is not a whole number"),
        (HEADER + "1,2\n7,²\n".encode(), 3, "is not a whole number"),
        (HEADER + b"1,2\n7,-5\n", 3, "'-5' is out of range; it is from 0 to 9223372036854775807"),
        (HEADER + b"1,2\n0,5\n", 3, "the member id '0' is out of range; it is from 1 to 9223372036854775807"),
        (HEADER + b"1,2\n-7,5\n", 3, "the member id '-7' is out of range"),
        (HEADER + b"1,2\n9223372036854775808,5\n", 3, "is out of range"),
        (HEADER + b"1,2\n7,9223372036854775808\n", 3, "is out of range"),
        (HEADER + b"1,2\n7," + b"9" * 5000 + b"\n", 3, "is out of range"),
        (HEADER + b"1,2\n7\n", 3, "there is no column `points`"),
        (HEADER + b"1,2\n\n7,5\n", 3, "the line is empty; remove it"),
        (HEADER + b"1,2\n\n\n" + b"7,5\n" * 9000, 3, "the line is empty; remove it"),
        (HEADER + b"1,2\n7,5,\xe9\n", 3, "the text is not UTF-8"),
        (HEADER + b"1,2\n\xff,5\n", 3, "the text is not UTF-8"),
        ("member_id,points\n7,5\n".encode("utf-16"), 1, "the text is not UTF-8"),
        ("member_id,points\n7,5\n".encode("utf-16-le"), 1, "NUL byte"),
        (HEADER + b"1,2\n7,5,a\x00b\n", 3, "there is a NUL byte"),
        (HEADER + b"1,2\x00\n", 2, "there is a NUL byte"),
        (HEADER + b'1,2\n7,5,"open\n8,6\n9,7\n', 3, "is opened and not closed"),
        (HEADER + b'1,2\n7,"5"x\n', 3, "the line is not proper CSV"),
        (HEADER + b"1,2\r7,5\r8,6\n", 2, "the line is not proper CSV"),
        (HEADER + b"1,2\n7,5," + b"x" * LINE_MAX_BYTES, 3, f"longer than {LINE_MAX_BYTES} bytes"),
        (HEADER + b'1,2\n7,5,"' + b"x\n" * LINE_MAX_BYTES, 3, "is opened and not closed"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [None, 97, BLOCK_MAX_BYTES])
def test_the_first_wrong_line_is_named_and_what_is_wrong_with_it(
    file: bytes, line: int, words: str, piece_bytes: int | None
) -> None:
    """The number is in the problem's `line` and in the sentence, which also says what to do."""
    refused = refusal(file, piece_bytes)
    assert refused.code == "invalid_request"
    assert refused.extra == {"line": line}
    assert refused.detail.startswith(f"Line {line}: ")
    assert words in refused.detail


@pytest.mark.parametrize("wrong", [b"x,1", b"7", b"7,1,\xe9", b"7,1,\x00", b'7,1,"open', b"7,1\r,2"])
def test_a_wrong_line_is_found_among_very_many(wrong: bytes) -> None:
    """In whichever block the line is, its number is right."""
    good = [b"%d,%d\n" % (member, member % 300) for member in range(1, 20_001)]
    for at in (0, 1, 1_234, 9_999, 19_999):
        file = HEADER + b"".join([*good[:at], wrong + b"\n", *good[at:]])
        assert refusal(file).extra == {"line": at + 2}


def test_a_long_value_is_shown_cut() -> None:
    """The sentence stays a sentence."""
    assert len(refusal(HEADER + b"7," + b"z" * 5_000 + b"\n").detail) < 200


numbers = st.integers(0, 2**64) | st.sampled_from(
    [0, 1, 10**18 - 1, 10**18, POINTS_MAX - 1, POINTS_MAX, POINTS_MAX + 1]
)


@given(st.lists(st.tuples(numbers, numbers), min_size=1), st.booleans(), st.integers(1, 200))
@example([(POINTS_MAX, POINTS_MAX)], False, 200)
@example([(POINTS_MAX + 1, 0)], False, 200)
def test_numbers_pass_exactly_when_they_are_in_range(
    entries: list[tuple[int, int]], quoted: bool, piece_bytes: int
) -> None:
    """The expression over whole blocks and the exact way, which quotes force, agree on every edge."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator="\n").writerows(entries)
    file = HEADER + text.getvalue().encode()
    wrong = [
        line
        for line, (member, points) in enumerate(entries, 2)
        if not (1 <= member <= MEMBER_MAX and points <= POINTS_MAX)
    ]
    if wrong:
        assert refusal(file, piece_bytes).extra == {"line": wrong[0]}
    else:
        assert read(file, piece_bytes) == [(line, *entry) for line, entry in enumerate(entries, 2)]


def test_memory_stays_flat_however_long_the_file() -> None:
    """Two megabytes of lines leave nothing behind, and need no more than some blocks while they pass."""
    parser = PointsCsv()
    parser.feed(HEADER)
    block = b"".join(b"%d,100,2011-01-11\n" % member for member in range(10**9, 10**9 + 600))
    parser.feed(block)
    tracemalloc.start()
    try:
        for _ in range(2_000_000 // len(block)):
            parser.feed(block)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20 * BLOCK_MAX_BYTES


async def test_others_get_their_turn_after_each_block() -> None:
    """However large the piece that comes in, at most one block of it is worked on at a time."""
    file = HEADER + b"".join(b"%d,100\n" % member for member in range(1, 50_001))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def whole() -> AsyncIterator[bytes]:
        yield file

    task = asyncio.create_task(other())
    rows = b"".join([part async for part in rows_of(whole(), PointsCsv())])
    task.cancel()
    assert rows.count(b"\n") == 50_000
    assert turns >= len(file) // BLOCK_MAX_BYTES > 20
