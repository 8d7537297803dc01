"""The section ``source``: where a raw log is, and how its files are read."""

import codecs
import re
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gur_spark.config.section import Section, Share

QUOTE = '"'
"""Encloses a CSV value that holds the delimiter; inside a value it is doubled."""


BLANKS = "blanks"
"""Delimiter that stands for any number of blanks and tabs."""

DATE_PARTS = ("year", "month", "day")
"""Named groups of a landing pattern."""


class Source(Section):
    """The raw event log."""

    path: str | None = None
    """A folder, or one file; not used with ``format: table``."""
    format: Literal["csv", "jsonl", "parquet", "orc", "avro", "delta", "table"]
    table: str | None = None
    """The catalog table to read, with ``format: table``."""
    layout: Literal["daily", "bulk"]
    """``daily``: each file or sub-folder is a landing dated by ``landing_pattern``; ``bulk``: all of it is one load."""
    landing_pattern: str
    """Expression that is searched in the path below ``path``. Its first group is the landing's date, YYYY-MM-DD or
    YYYYMMDD, or its groups ``year``, ``month`` and ``day`` are."""
    delimiter: str = Field(min_length=1)
    """One character, or ``blanks``: any number of blanks and tabs."""
    widths: list[int] | None = Field(default=None, min_length=1)
    """Characters of each of the ``columns``, where no delimiter is between them; blanks around a value are dropped."""
    encoding: str
    """Any text encoding that Python knows, such as ``latin-1``, ``cp1251`` or ``utf-16``."""
    columns: list[str] | None = None
    """Column names of CSV files that have no header line."""
    multiline: bool = False
    """Whether a quoted CSV value may hold line breaks. Such a file is read by one worker."""
    null_values: list[str] = Field(default_factory=list)
    """Texts that stand for no value in every column, such as ``NULL``, ``\\N`` or ``nan``."""
    decimal_separator: str = Field(default=".", min_length=1, max_length=1)
    """Character before the decimal places of a number."""
    thousands_separator: str | None = Field(default=None, min_length=1, max_length=1)
    """Character between groups of three digits of a number; null: there is none."""
    max_future_days: int = Field(default=1, ge=0)
    """An event may be so many days later than the day of its landing, or in a bulk load than now; later ones are
    quarantined."""
    max_bad_share: Share
    """Above this share of quarantined rows, or of bytes in files that cannot be read, the job fails before anything is
    visible."""
    max_value_chars: int = Field(ge=1)
    """A user id or category longer than this is quarantined."""

    @field_validator("landing_pattern")
    @classmethod
    def _one_group(cls, value: str) -> str:
        try:
            found = re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if found.groups < 1:
            raise ValueError("expected a regular expression with a group around the date")
        if found.groupindex and set(found.groupindex) != set(DATE_PARTS):
            raise ValueError(f"named groups {list(found.groupindex)}; expected {list(DATE_PARTS)}")
        return value

    @field_validator("null_values", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, list) and None in value:
            raise ValueError("YAML reads NULL and null as nothing; write 'NULL', in quotes")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            found = codecs.lookup(value)
            "\r\n".encode(value)
        except LookupError as error:
            raise ValueError(f"unknown encoding '{value}'; expected one that Python knows, such as cp1251") from error
        return found.name

    @model_validator(mode="after")
    def _separators(self) -> "Source":
        if len(self.delimiter) > 1 and self.delimiter != BLANKS:
            raise ValueError(f"delimiter: expected one character or '{BLANKS}', got {self.delimiter!r}")
        if self.widths and len(self.widths) != len(self.columns or []):
            raise ValueError(f"{len(self.widths)} widths for {len(self.columns or [])} columns; expected one for each")
        if self.decimal_separator == self.thousands_separator:
            raise ValueError(f"decimal_separator and thousands_separator are both {self.decimal_separator!r}")
        if self.format == "jsonl" and (self.decimal_separator != "." or self.thousands_separator):
            raise ValueError("decimal_separator and thousands_separator are about texts, and JSON has numbers")
        if self.multiline and self.format != "csv":
            raise ValueError(f"multiline is about csv, and format is '{self.format}'")
        return self

    @model_validator(mode="after")
    def _complete(self) -> "Source":
        if self.format == "table" and not self.table:
            raise ValueError("format 'table' needs source.table")
        if self.format != "table" and not self.path:
            raise ValueError(f"format '{self.format}' needs source.path")
        if self.format == "avro" and find_spec("fastavro") is None:
            raise ValueError("format 'avro' needs the library fastavro: pip install 'gur_spark[avro]'")
        if self.format in ("delta", "table") and self.layout != "bulk":
            raise ValueError(f"format '{self.format}' is read with layout 'bulk'")
        return self
