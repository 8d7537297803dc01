"""Reading of raw files on Sail, so that a raw row becomes the same event as on Spark.

Sail's text reader stops at a byte that is not UTF-8 and does not name the file of a line, ``from_csv`` knows no quotes,
``from_json`` does not report a broken line, and numbers with an exponent are not read as decimals. Here Python reads
lines with pyarrow, a few megabytes at a time, and splits lines that hold a quote. One thread reads each file.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any
from urllib.parse import quote as url_quote

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from gur_spark import storage
from gur_spark.config.logs import QUOTE
from gur_spark.events.files import File

BLOCK_BYTES = 4 << 20

_LINES = "uri STRING, raw STRING, valid BOOLEAN"
_LINES_ARROW = pa.schema({"uri": pa.string(), "raw": pa.string(), "valid": pa.bool_()})


def find_files(root: str) -> dict[str, tuple[str, int, int | None]]:
    """Files below a folder: path as Spark writes it -> (URI, bytes, last change in microseconds).

    Raises:
        FileNotFoundError: nothing is there.
    """
    filesystem, inner = storage.open_filesystem(root)
    info = filesystem.get_file_info(inner)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"{root} does not exist")
    below = filesystem.get_file_info(fs.FileSelector(inner, recursive=True)) if not info.is_file else [info]
    found = {}
    for file in below:
        hidden = any(part[:1] in ("_", ".") for part in file.path.removeprefix(inner).split("/"))
        if file.is_file and not hidden:
            path = f"file:{file.path}" if storage.is_local(root) else file.path
            # Spark knows the time to the millisecond, and both engines must find the same fingerprint.
            changed = file.mtime_ns // 1_000_000 * 1_000 if file.size else None
            found[path] = (url_quote(path, safe=":/"), file.size, changed)
    return found


def lines(spark: SparkSession, files: Sequence[File], encoding: str) -> DataFrame:
    """One row per line: ``uri, raw, valid`` (whether the bytes are text in the encoding).

    Computing the frame raises a worker's error where a file is gone or broken.
    """

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for uri, path in _files_of(batches):
            for block in _blocks(path):
                raw, valid = _decode(block, encoding)
                yield pa.record_batch([pa.repeat(uri, len(raw)), raw, valid], schema=_LINES_ARROW)

    return _frame(spark, files).mapInArrow(kernel, _LINES)


def first_lines(spark: SparkSession, files: Sequence[File], encoding: str) -> dict[str, str]:
    """URI -> first line that is not blank. A file without such a line is left out."""

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for uri, path in _files_of(batches):
            texts = (text for block in _blocks(path) for text in _decode(block, encoding)[0].to_pylist())
            first = next((text for text in texts if text.strip(" ")), None)
            yield pa.record_batch([[uri], pa.array([first], pa.string())], names=["uri", "raw"])

    found = _frame(spark, files).mapInArrow(kernel, "uri STRING, raw STRING").where(F.col("raw").isNotNull())
    return {row["uri"]: row["raw"] for row in found.collect()}


def parquet_files(spark: SparkSession, files: Sequence[File]) -> DataFrame:
    """Rows of Parquet files, with the ``uri`` of each row's file."""

    def read(file: File) -> DataFrame:
        # Sail takes `[x]` for a pattern that matches only x.
        plain = re.sub(r"([\\{}\[\]*?])", r"[\1]", file.path.removeprefix("file:"))
        return spark.read.parquet(plain).withColumn("uri", F.lit(file.uri))

    return reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), map(read, files))


def csv_values(raw: Column, delimiter: str) -> Column:
    """Values of a line with quotes, as Spark's ``from_csv`` finds them. An empty value is an empty text."""
    d, q = re.escape(delimiter), QUOTE
    blanks = " \t".replace(delimiter, "")
    # A quote that is not closed before a delimiter begins no quoted value.
    value = re.compile(rf"{q}((?:[^{q}]|{q}{q})*+){q}[{blanks}]*(?={d}|\Z)|([^{d}]*)")

    def split(line: str) -> list[str]:
        values, end = [], -1
        while end < len(line):
            found = value.match(line, end + 1)
            assert found is not None  # the pattern also matches an empty text
            quoted = found[1]
            values.append(found[2] if quoted is None else quoted.replace(QUOTE * 2, QUOTE))
            end = found.end()
        return values

    return _by_line(raw, split, "ARRAY<STRING>", pa.list_(pa.string()))


def json_values(raw: Column, names: Sequence[str]) -> Column:
    """Texts of these keys in a line's JSON object, in their order; null for a line that is no JSON object.

    Numbers are written as Spark writes them, except for exponents; objects and lists as compact JSON.
    """

    def read(line: str) -> list[str | None] | None:
        try:
            # Spark does not read beyond the object's end either.
            found, _ = json.JSONDecoder().raw_decode(line.lstrip())
        except ValueError:
            return None
        return [_json_text(found.get(name)) for name in names] if isinstance(found, dict) else None

    return _by_line(raw, read, "ARRAY<STRING>", pa.list_(pa.string()))


def plain_number(text: Column) -> Column:
    """Text of a number without an exponent; null where Sail's cast would accept a text that Spark's refuses."""
    parts = r"^[\x00-\x20]*([+-]?)([0-9]*)\.?([0-9]*)[eE]([+-]?[0-9]{1,9})[\x00-\x20]*$"
    sign, whole, fraction, exponent = (F.regexp_extract(text, parts, n) for n in (1, 2, 3, 4))
    digits = F.concat(whole, fraction)
    # A text has at most 100 digits and a decimal 38, so larger exponents give a number out of range, or zero.
    shift = F.greatest(F.lit(-200), F.least(F.lit(200), exponent.try_cast("INT")))
    point, many = F.length(whole) + shift, F.length(digits)
    expanded = (
        F.when(point < -40, F.lit("0"))
        .when(point <= 0, F.concat(F.lit("0."), F.repeat(F.lit("0"), -point), digits))
        .when(point >= many, F.concat(digits, F.repeat(F.lit("0"), point - many)))
        .otherwise(F.concat(F.substring(digits, F.lit(1), point), F.lit("."), F.substring(digits, point + 1, many)))
    )
    # Sail does not read more digits than a decimal has. Cutting behind the last place that counts changes no rounding.
    short = r"^[\x00-\x20]*([+-]?)0*([0-9]+\.?[0-9]{0,30}|\.[0-9]{1,30})[0-9]*[\x00-\x20]*$"
    plain = F.when(text.rlike(parts) & (many > 0), F.concat(sign, expanded)).otherwise(text)
    return F.when(plain.rlike(short), F.regexp_replace(plain, short, "$1$2"))


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _by_line(raw: Column, make: Callable[[str], Any], returns: str, arrow: pa.DataType) -> Column:
    """Column of a Python function's results for each line that is not null."""

    def apply(texts: pa.Array) -> pa.Array:
        return pa.array([None if text is None else make(text) for text in texts.to_pylist()], arrow)

    apply.__annotations__ = {"texts": pa.Array, "return": pa.Array}
    column: Column = arrow_udf(apply, returns)(raw)  # type: ignore[call-overload]
    return column


def _frame(spark: SparkSession, files: Sequence[File]) -> DataFrame:
    frame = spark.createDataFrame([(file.uri, file.path) for file in files], "uri STRING, path STRING")
    return frame.repartition("uri")


def _files_of(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, str]]:
    for batch in batches:
        yield from zip(batch["uri"].to_pylist(), batch["path"].to_pylist(), strict=True)


def _blocks(path: str) -> Iterator[bytes]:
    """Bytes of a file in blocks of whole lines. Lines end with one line feed, the last one may end with the file."""
    filesystem, inner = storage.open_filesystem(path.removeprefix("file:"))
    with filesystem.open_input_stream(inner, compression="detect") as stream:
        held = b""
        while block := stream.read(BLOCK_BYTES):
            held += block
            end = held.rfind(b"\n") + 1
            if end:
                yield _one_kind_of_line_end(held[:end])
                held = held[end:]
    if held:
        yield _one_kind_of_line_end(held)


def _one_kind_of_line_end(block: bytes) -> bytes:
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _decode(block: bytes, encoding: str) -> tuple[pa.Array, pa.Array]:
    """Lines of a block, and a mask of the valid ones. Bytes that are not text become U+FFFD."""
    try:
        text = block.decode(encoding)
    except UnicodeDecodeError:
        return _decode_each(block.split(b"\n"), encoding)
    raw = pc.list_flatten(pc.split_pattern(pa.array([text]), "\n"))
    return raw, pa.repeat(True, len(raw))


def _decode_each(lines: Sequence[bytes], encoding: str) -> tuple[pa.Array, pa.Array]:
    raw, valid = [], []
    for line in lines:
        text = line.decode(encoding, errors="replace")
        raw.append(text)
        valid.append("\ufffd" not in text or line == text.encode())
    return pa.array(raw, pa.string()), pa.array(valid)
