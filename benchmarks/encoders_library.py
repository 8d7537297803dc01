"""Side of pytorch-lifestream in ``benchmarks.encoders``: its loader, module, pair selector and inference."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ptls.data_load.datasets import ParquetDataset, ParquetFiles
from ptls.data_load.utils import collate_feature_dict
from ptls.frames.coles import CoLESModule
from ptls.frames.coles.coles_dataset import ColesIterableDataset
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.frames.inference_module import InferenceModule
from ptls.nn import RnnSeqEncoder, TrxEncoder
from ptls.nn.trx_encoder.scalers import IdentityScaler
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.encoders_data import BATCH_USERS, END, MODEL, SLICES, Vectors, new_module
from benchmarks.training import NUMERIC
from gur_spark.batches.sequences import DAY, TIMES
from gur_spark.features.declare.manifest import missing_column
from gur_spark.models.lifestream.encoder import NUMBERS
from gur_spark.schema import MISSING_ID


class Theirs:
    """The library with the weights and inputs of our module."""

    def __init__(self, folder: str) -> None:
        np.random.seed(0)
        self._encoder = library_encoder(new_module(folder).sequence)
        self._module = CoLESModule(self._encoder, optimizer_partial=object(), lr_scheduler_partial=object())
        self._files = ParquetFiles(str(Path(folder) / "data"))

    def data(self) -> None:
        """Batches of an epoch, without a model."""
        for _ in self._slices():
            pass

    def epoch(self) -> None:
        """An epoch of training."""
        self._module.train()
        optimizer = torch.optim.AdamW(self._module.parameters(), lr=0.001, weight_decay=0.0, fused=True)
        for batch in self._slices():
            optimizer.zero_grad()
            self._module._loss(*self._module.shared_step(*batch)).backward()
            optimizer.step()

    @torch.inference_mode()
    def embed(self) -> Vectors:
        """Embed as the library does: data frames with a column per number, one row per user."""
        module = InferenceModule(self._encoder.eval(), model_out_name="embedding")
        frame = pd.concat([module(batch) for batch in self._users()]).sort_values("user_id")
        vectors: Vectors = frame[[name for name in frame.columns if name.startswith("embedding_")]].to_numpy()
        return vectors

    @torch.inference_mode()
    def plain_embed(self) -> Vectors:
        """Embed in a plain loop over the library's loader, without data frames."""
        self._encoder.eval()
        made = [(batch.payload["user_id"].numpy(), self._encoder(batch).numpy()) for batch in self._users()]
        users, vectors = (np.concatenate(column) for column in zip(*made, strict=True))
        ordered: Vectors = vectors[np.argsort(users)]
        return ordered

    def _slices(self) -> Iterator[Any]:
        users = ParquetDataset(self._files, shuffle_files=True)
        slices = ColesIterableDataset(users, SampleSlices(SLICES.count, SLICES.min, SLICES.max))
        return iter(DataLoader(slices, BATCH_USERS, collate_fn=slices.collate_fn))

    def _users(self) -> Iterator[Any]:
        return iter(DataLoader(ParquetDataset(self._files), BATCH_USERS, collate_fn=collate_feature_dict))


class Standardised(IdentityScaler):  # type: ignore[misc]
    """Numbers of a padded column as a user of the library would compute them, less their mean, over their deviation."""

    def __init__(self, column: str, numbers: Callable[[Tensor], Tensor], mean_D: Tensor, std_D: Tensor) -> None:
        super().__init__(column)
        self._numbers, self._mean_D, self._std_D = numbers, mean_D, std_D

    def forward(self, column_BT: Tensor) -> Tensor:
        """Turn (B, T) into (B, T, D)."""
        return (self._numbers(column_BT) - self._mean_D) / self._std_D

    @property
    def output_size(self) -> int:
        return len(self._mean_D)


def times(time_BT: Tensor) -> Tensor:
    """The numbers of a time, (B, T, 6)."""
    age_BT = ((END - time_BT).double() / DAY).log1p()
    gap_BT = (torch.diff(time_BT, prepend=time_BT[:, :1]).double() / DAY).clip(0).log1p()
    hour_BT = time_BT // 3600 % (7 * 24)
    circles = [f(2 * torch.pi * hour_BT / period) for period in (24, 7 * 24) for f in (torch.sin, torch.cos)]
    return torch.stack([age_BT.float(), gap_BT.float(), *circles], dim=2)


def signed_log1p(number_BT: Tensor) -> Tensor:
    """The number on a logarithmic scale, (B, T, 1)."""
    return (number_BT.sign() * number_BT.abs().log1p()).float().unsqueeze(2)


def missing(flag_BT: Tensor) -> Tensor:
    """Whether the number is missing, (B, T, 1)."""
    return (flag_BT == MISSING_ID).float().unsqueeze(2)


def library_encoder(ours: RnnSeqEncoder) -> RnnSeqEncoder:
    """The same weights and inputs for the library's padded columns."""
    scaler, embeddings = ours.trx_encoder.custom_embeddings[NUMBERS], ours.trx_encoder.embeddings
    columns: dict[str, Callable[[Tensor], Tensor]] = {"event_time": times, **dict.fromkeys(NUMERIC, signed_log1p)}
    columns |= dict.fromkeys(map(missing_column, NUMERIC), missing)
    numbers, first = {}, 0
    for column, compute in columns.items():
        last = first + (len(TIMES) if column == "event_time" else 1)
        numbers[column] = Standardised(column, compute, scaler.mean_D[first:last], scaler.std_D[first:last])
        first = last
    tables = {name: {"in": table.num_embeddings, "out": table.embedding_dim} for name, table in embeddings.items()}
    events = TrxEncoder(tables, numeric_values=numbers, use_batch_norm=False)
    made = RnnSeqEncoder(events, hidden_size=MODEL.latent_dim, type=MODEL.encoder)
    made.trx_encoder.embeddings.load_state_dict(embeddings.state_dict())
    made.seq_encoder.load_state_dict(ours.seq_encoder.state_dict())
    return made
