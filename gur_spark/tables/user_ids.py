"""User ids of a table that a user hands in, checked against the pipeline's type before use."""

from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DecimalType, IntegralType, StringType

from gur_spark.errors import GurError
from gur_spark.schema import SQL_USER_ID


def user_ids(
    frame: DataFrame, column: str, kind: Literal["long", "string"], where: str, error: type[GurError]
) -> Column:
    """The ids of a column in the pipeline's type; null where a text is no such id.

    Args:
        where: name of the table, for the message.

    Raises:
        ``error``: the column is a float, which cannot tell ids above 2^53 apart, or has another type that no id has.
    """
    found = frame.schema[column].dataType
    if not _holds_ids(found):
        raise error(
            f"{where}: {column} is {found.simpleString()}, expected {SQL_USER_ID[kind].lower()}; write the ids as "
            "whole numbers or as text"
        )
    return F.col(f"`{column}`").cast("string").try_cast(SQL_USER_ID[kind])


def _holds_ids(kind: DataType) -> bool:
    whole = isinstance(kind, DecimalType) and kind.scale == 0
    return whole or isinstance(kind, IntegralType | StringType)
