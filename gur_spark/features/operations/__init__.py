"""All operations that can be declared. Importing this package registers them."""

from gur_spark.features.operations import categorical, events, numeric, ordered
from gur_spark.features.operations.base import REGISTRY, Derived, Operation, OutputColumn, find, operation

__all__ = [
    "REGISTRY",
    "Derived",
    "Operation",
    "OutputColumn",
    "categorical",
    "events",
    "find",
    "numeric",
    "operation",
    "ordered",
]
