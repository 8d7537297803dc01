"""Sets of categories, written as one text such as ``rock|jazz``, and their members."""

import re
from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def each_member(rows: DataFrame, separators: Mapping[str, str]) -> DataFrame:
    """Replace each set by its members: one row per member, or per combination of members of several sets.

    A blank member is null, and an empty set has one row with null.

    Args:
        separators: column -> text between two members.
    """
    for name, separator in separators.items():
        members = F.explode_outer(F.split(F.col(name), re.escape(separator)))
        split = rows.select(*[members.alias(c) if c == name else F.col(c) for c in rows.columns])
        rows = split.withColumn(name, F.nullif(F.trim(name), F.lit("")))
    return rows
