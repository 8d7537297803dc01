"""Categories of which a row has several: a text such as ``rock|jazz``, and its members."""

import re
from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def each_member(rows: DataFrame, separators: Mapping[str, str]) -> DataFrame:
    """One row per member of a row's sets (of several sets, per combination), the text of which it takes the place of.

    Args:
        separators: what stands between the members, by column. Blank ones are null; a set without any is one null.
    """
    for name, separator in separators.items():
        members = F.explode_outer(F.split(F.col(name), re.escape(separator)))
        split = rows.select(*[members.alias(c) if c == name else F.col(c) for c in rows.columns])
        rows = split.withColumn(name, F.nullif(F.trim(name), F.lit("")))
    return rows
