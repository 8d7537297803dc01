"""Parts of files that workers read at the same time, and the lines in them."""

import codecs
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark import storage
from gur_spark.config.source import Source
from gur_spark.events.files import File

BLOCK_BYTES = 8 << 20
"""Bytes that a worker reads and parses at a time."""

RANGE_BYTES = 64 << 20
"""Bytes of a part of a large file."""

COMPRESSED = (".gz", ".bz2", ".zst", ".lz4", ".br", ".zip")
"""Names of compressed files end with one of these. A compressed file is read by one worker."""

Lines = tuple[pa.StringArray, pa.BooleanArray | None]
"""Lines, and which of them are text in the encoding (None: all)."""

REPLACEMENT = "\ufffd"
"""Character that decoders put in the place of bytes that are no text."""

_NO_TEXT = "\udcff"
"""Half of a character, which no text has, in the place of bytes that are no text."""

_MARK_ERRORS = "gur_spark.mark"
codecs.register_error(_MARK_ERRORS, lambda error: (_NO_TEXT, error.end))  # type: ignore[attr-defined]

MARK = "\ufeff"
"""Byte order mark, decoded."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bytes of a file that one worker reads: the lines, or row groups, that begin in them."""

    file: int
    """Position of the file among those of the run."""
    start: int
    end: int | None
    """None: to the end of the file."""


def ranges_of(files: Sequence[File], source: Source) -> list[list[Range]]:
    """Distribute files over tasks of about equal bytes; a large file is split where its format allows."""
    parts = [part for number, file in enumerate(files) for part in _split(number, file, source)]
    total = sum(file.length for file in files)
    tasks: list[list[Range]] = [[] for _ in range(max(1, min(len(parts), -(-total // (RANGE_BYTES // 2)))))]
    loads = [0] * len(tasks)
    for part, size in sorted(parts, key=lambda one: -one[1]):
        lightest = min(range(len(tasks)), key=loads.__getitem__)
        tasks[lightest].append(part)
        # An open file costs about as much as these bytes.
        loads[lightest] += size + (64 << 10)
    return tasks


def _split(number: int, file: File, source: Source) -> Iterator[tuple[Range, int]]:
    of_lines = source.format in ("csv", "jsonl") and splits_at_bytes(source.encoding) and not source.multiline
    if not (of_lines or source.format == "parquet") or file.path.endswith(COMPRESSED) or file.length <= RANGE_BYTES:
        yield Range(file=number, start=0, end=None), file.length
        return
    count = -(-file.length // RANGE_BYTES)
    size = -(-file.length // count)
    for start in range(0, file.length, size):
        yield Range(file=number, start=start, end=min(start + size, file.length)), size


def splits_at_bytes(encoding: str) -> bool:
    """Whether a line feed is one byte in the encoding."""
    return "\r\n".encode(encoding) == b"\r\n"


def line_blocks(path: str, part: Range, encoding: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Lines]:
    """Lines that begin in a range, some megabytes at a time, and which of them are text in the encoding (None: all).

    Lines end with a line feed, or a carriage return and a line feed, or a carriage return. Byte order marks at the
    beginning of lines are removed, because files that were put together have them anywhere.

    Raises:
        OSError: the file cannot be read, or its compression is broken.
    """
    if part.start or part.end is not None:
        filesystem, inner = storage.open_filesystem(path)
        with filesystem.open_input_file(inner) as stream:
            yield from (_decode(block, encoding) for block in _whole_lines(stream, part.start, part.end, block_bytes))
        return
    with _decompressed(path) as stream:
        if splits_at_bytes(encoding):
            yield from (_decode(block, encoding) for block in _whole_lines(stream, 0, None, block_bytes))
        else:
            yield from _decoded_stream(stream, encoding)


@contextmanager
def _decompressed(path: str) -> Iterator[Any]:
    """The bytes of a file that may be compressed.

    Raises:
        OSError: a zip archive has not exactly one file.
    """
    filesystem, inner = storage.open_filesystem(path)
    if not path.endswith(".zip"):
        with filesystem.open_input_stream(inner, compression="detect") as stream:
            yield stream
        return
    with filesystem.open_input_file(inner) as file, zipfile.ZipFile(file) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        if len(names) != 1:
            raise OSError(f"a zip archive with {len(names)} files: {names[:5]}; expected one file in it")
        with archive.open(names[0]) as stream:
            yield stream


def _whole_lines(stream: Any, start: int, end: int | None, block_bytes: int) -> Iterator[bytes]:
    """Blocks of whole lines that begin in ``[start, end)``."""
    position = start
    if start:
        # The line that the byte before belongs to is read with the range before.
        stream.seek(start - 1)
        position = start - 1
    held = b""
    skipping = bool(start)
    while block := stream.read(block_bytes):
        if skipping:
            first = block.find(b"\n") + 1
            position += first or len(block)
            if not first:
                if end is not None and position >= end:
                    return
                continue
            block, skipping = block[first:], False
            if end is not None and position >= end:
                return
        held += block
        # Without a line feed, lines end with carriage returns. One at the end may be half of a line's end.
        cut = held.rfind(b"\n") + 1 or held.rfind(b"\r", 0, -1) + 1
        if end is not None and position + len(held) >= end:
            # The last line is the one with the last byte of the range.
            last = held.find(b"\n", max(0, end - 1 - position)) + 1
            if last:
                yield held[:last]
                return
        if cut:
            yield held[:cut]
            position += cut
            held = held[cut:]
    if held:
        yield held


def _decoded_stream(stream: Any, encoding: str) -> Iterator[Lines]:
    """Lines of a stream in an encoding whose line feed is several bytes."""
    decoder = codecs.getincrementaldecoder(encoding)(errors=_MARK_ERRORS)
    held = ""
    while block := stream.read(BLOCK_BYTES):
        held += decoder.decode(block)
        cut = held.rfind("\n") + 1 or held.rfind("\r", 0, -1) + 1
        if cut:
            yield _marked(held[:cut])
            held = held[cut:]
    held += decoder.decode(b"", final=True)
    if held:
        yield _marked(held)


def _marked(text: str) -> Lines:
    """Lines of text in which ``_NO_TEXT`` stands for bytes that are no text in the encoding."""
    lines = _lines(text.replace(_NO_TEXT, REPLACEMENT).encode("utf-8", "replace"))
    if _NO_TEXT not in text:
        return lines, None
    # U+FFFD may be in the file, too.
    marks = _lines(text.replace(REPLACEMENT, "?").replace(_NO_TEXT, REPLACEMENT).encode("utf-8", "replace"))
    return lines, pc.invert(pc.match_substring(marks, REPLACEMENT))


def _decode(block: bytes, encoding: str) -> Lines:
    """Lines of a block, and a mask of the valid ones. Bytes that are not text become U+FFFD."""
    try:
        text = block.decode(encoding)
    except UnicodeDecodeError:
        return _decode_each(_one_kind_of_line_end(block).removesuffix(b"\n").split(b"\n"), encoding)
    return _lines(block if encoding == "utf-8" else text.encode()), None


def _decode_each(lines: Sequence[bytes], encoding: str) -> tuple[pa.StringArray, pa.BooleanArray]:
    raw, valid = [], []
    for line in lines:
        try:
            raw.append(line.decode(encoding))
            valid.append(True)
        except UnicodeDecodeError:
            raw.append(line.decode(encoding, errors="replace"))
            valid.append(False)
    return _without_marks(pa.array(raw, pa.string())), pa.array(valid)


def _lines(block: bytes) -> pa.StringArray:
    """Lines of UTF-8 text; a line feed at the end of the block begins no line."""
    block = _one_kind_of_line_end(block)
    if not block.endswith(b"\n"):
        block += b"\n"
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    offsets = np.concatenate(([0], ends + 1)).astype(np.int32)
    with_ends = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block))
    lines = pc.utf8_rtrim(with_ends, "\n")
    return _without_marks(lines) if MARK.encode() in block else lines


def _without_marks(lines: pa.StringArray) -> pa.StringArray:
    return pc.replace_substring_regex(lines, f"^{MARK}+", "")


def _one_kind_of_line_end(block: bytes) -> bytes:
    if b"\r" not in block:
        return block
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def opened(path: str) -> IO[bytes]:
    """A file for libraries that read Python's file objects."""
    filesystem, inner = storage.open_filesystem(path)
    stream: IO[bytes] = filesystem.open_input_file(inner)
    return stream
