"""Lines of a file, however it is cut into ranges and blocks, are the lines of the file, each once."""

import codecs
import io
import random
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from gur_spark.config.source import Source
from gur_spark.events.csv_rows import rows_of_lines
from gur_spark.events.files import File
from gur_spark.events.ranges import RANGE_BYTES, Range, line_blocks, ranges_of
from tests.conftest import config_over

CONTENT = ["", "a", "bb,1", "é漢字", '"x', "x" * 40, " ", "\ufeffmark", "0123456789"]


def content(rng: random.Random, end: str) -> str:
    lines = [rng.choice(CONTENT) for _ in range(rng.randint(1, 12))]
    return end.join(lines) + rng.choice(["", end])


def expected(text: str, end: str) -> list[str]:
    lines = text.split(end)
    if text.endswith(end):
        lines.pop()
    return [line.lstrip("\ufeff") for line in lines if line.strip(" ")]


def read(path: Path, part: Range, encoding: str, block_bytes: int) -> list[str]:
    blocks = line_blocks(str(path), part, encoding, block_bytes)
    return [line for lines, _ in blocks for line in lines.to_pylist() if line.strip(" ")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_line_is_in_the_range_that_its_first_byte_is_in(end: str, tmp_path: Path) -> None:
    rng = random.Random(3)
    for number in range(60):
        text = content(rng, end)
        path = tmp_path / f"{number}.txt"
        path.write_bytes(text.encode())
        size = len(text.encode())
        cuts = sorted({0, size, *(rng.randrange(size + 1) for _ in range(rng.randint(0, 5)))})
        parts = [Range(file=0, start=a, end=b) for a, b in pairwise(cuts)]
        found = [line for part in parts for line in read(path, part, "utf-8", rng.choice([1, 2, 3, 7, 1000]))]
        assert found == expected(text, end), (text, cuts)


def test_a_file_of_carriage_returns_is_not_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"0123456789\r" * 100)
    blocks = list(line_blocks(str(path), Range(file=0, start=0, end=None), "utf-8", 50))
    assert len(blocks) > 10
    assert [line for lines, _ in blocks for line in lines.to_pylist()] == ["0123456789"] * 100


def test_the_character_for_no_text_is_text_where_the_file_has_it(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes("a\ufffd\n".encode("utf-16") + b"\x00\xd8x\x00\n\x00" + "b\n".encode("utf-16-le"))
    [(lines, valid)] = line_blocks(str(path), Range(file=0, start=0, end=None), "utf-16")
    assert lines.to_pylist() == ["a\ufffd", "\ufffdx", "b"]
    assert valid is not None
    assert valid.to_pylist() == [True, False, True]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-le", "cp1251", "shift_jis"])
def test_lines_of_any_encoding_are_decoded_whole(encoding: str, tmp_path: Path) -> None:
    words = {"cp1251": "щи", "shift_jis": "ー表ソ"}.get(encoding, "é漢字")
    text = "\n".join([words * n for n in range(1, 9)])
    path = tmp_path / "file.txt"
    path.write_bytes(text.encode(encoding))
    whole = Range(file=0, start=0, end=None)
    assert read(path, whole, codecs.lookup(encoding).name, 3) == text.split("\n")


def test_bytes_that_are_no_text_mark_their_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"good\nb\xffd\nalso good")
    blocks = list(line_blocks(str(path), Range(file=0, start=0, end=None), "utf-8"))
    lines = [line for found, _ in blocks for line in found.to_pylist()]
    valid = [one for found, valid in blocks for one in (valid.to_pylist() if valid else [True] * len(found))]
    assert lines == ["good", "b\ufffdd", "also good"]
    assert valid == [True, False, True]


def test_a_row_over_several_lines_is_joined_across_blocks() -> None:
    text = 'h\n1,"a\nb\n\n"\n2,"c""\nd"\n3\n4,"open\n'
    rows = ["h", '1,"a\nb\n\n"', '2,"c""\nd"', "3", '4,"open']
    lines = text.removesuffix("\n").split("\n")
    for size in (1, 2, 3, 20):
        blocks = [(pa.array(lines[n : n + size], pa.string()), None) for n in range(0, len(lines), size)]
        assert [row for found, _ in rows_of_lines(blocks) for row in found.to_pylist()] == rows


def source(**more: object) -> Source:
    found: Source = config_over("unused", source={"path": "unused", **more}).source
    return found


def test_files_are_shared_out_by_their_bytes_and_large_ones_are_cut() -> None:
    files = [
        File(path=f"file:/{n}", length=size, modified=1, landing=None)
        for n, size in enumerate([RANGE_BYTES * 3, 10, 20, RANGE_BYTES // 2])
    ]
    tasks = ranges_of(files, source())
    parts = sorted((part.file, part.start, part.end) for task in tasks for part in task)
    cut = [(0, n * RANGE_BYTES, (n + 1) * RANGE_BYTES) for n in range(3)]
    assert parts == [*cut, (1, 0, None), (2, 0, None), (3, 0, None)]
    assert len(tasks) > 1
    whole = {part.end for task in ranges_of(files, source(multiline=True)) for part in task}
    assert whole == {None}


def test_an_empty_stream_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes(io.BytesIO().getvalue())
    assert read(path, Range(file=0, start=0, end=None), "utf-8", 10) == []
