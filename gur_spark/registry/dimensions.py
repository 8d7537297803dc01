"""Named dimensions of a model version, for notebooks and reports."""

import json
from dataclasses import asdict
from hashlib import sha256

import pandas as pd
from pyspark.sql import SparkSession

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import ModelError
from gur_spark.models.kind import Dimension
from gur_spark.registry.card import verified_card
from gur_spark.registry.files import CARD, DIMENSIONS, pack
from gur_spark.registry.known import find_model
from gur_spark.registry.names import VersionName
from gur_spark.tables.open import open_tables


def describe_dimensions(spark: SparkSession, config: Config, version: str = "published") -> pd.DataFrame:
    """Describe the numbers of a version's embeddings that have a name: one row per dimension.

    The columns are ``dimension`` (the position in the embedding, from 1 on), ``name`` (its largest loadings),
    ``variance`` (the share of the variance of all inputs) and ``loadings`` (input -> weight). Numbers without a name
    have no row: those of a network, and all numbers of a version without a linear part.

    Args:
        version: a model version, its means, or rows in the space of an older version, which have that version's
            dimensions; ``newest``, or ``published``.

    Raises:
        ModelError: there is no such version, or its file of dimensions was altered.
    """
    parsed = VersionName.parse(version)
    found = read_dimensions(find_model(open_tables(spark, config.tables), config, parsed.space or version).path)
    rows = [asdict(dimension) for dimension in found]
    named = pd.DataFrame(rows, columns=["number", "name", "variance", "loadings"])
    return named.rename(columns={"number": "dimension"})


def read_dimensions(path: str) -> list[Dimension]:
    """Read the named dimensions of the artefact in this folder; none for a version without names.

    Raises:
        ModelError: the artefact is damaged, or the file was altered.
    """
    file = storage.join(path, DIMENSIONS)
    card = pack(path)
    verified_card(card)
    digest = json.loads(card[CARD])["sha256"].get(DIMENSIONS)
    if digest is None:
        return []
    try:
        content = storage.read_bytes(file)
    except FileNotFoundError as error:
        raise ModelError(f"model {path}: {DIMENSIONS} is missing") from error
    if sha256(content).hexdigest() != digest:
        raise ModelError(f"model {path}: {DIMENSIONS} was altered or cut short")
    return [Dimension(**values) for values in json.loads(content)]
