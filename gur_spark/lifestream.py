"""GUR for pytorch-lifestream scripts, in one import (extra ``sequences``)."""

from gur_spark.batches.lifestream import GURDataset, GURIterableDataset
from gur_spark.models.gur.sequence_door import AutoEncoderSeqEncoder
from gur_spark.models.gur.sequence_module import GURModule

__all__ = ["AutoEncoderSeqEncoder", "GURDataset", "GURIterableDataset", "GURModule"]
