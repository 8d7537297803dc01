"""GUR on sequences, in the place of CoLES in a pytorch-lifestream script.

Two statements of the script change, the module with its encoder and the data set::

    module = CoLESModule(seq_encoder=RnnSeqEncoder(trx_encoder, hidden_size=120), optimizer_partial=..., ...)
    data = ColesIterableDataset(ParquetDataset(files), splitter=SampleSlices(5, 25, 200))

    module = GURModule(seq_encoder=AutoEncoderSeqEncoder(trx_encoder, latent_dim=120), optimizer_partial=..., ...)
    data = GURIterableDataset(ParquetDataset(files))

A window's input is the mean of what the transaction encoder makes of its events, their number, and a flag where there
is none. The mean of embedded categories is an ``EmbeddingBag`` over the window's histogram, so that the same weights
embed aggregates too (``encode_aggregates``).
"""

# B = users, T = events, H = width of an encoded event, W = windows, F = parts of an encoded event, E = width of one, V
# = values that may be standardised, D = those that are dense, L = latent width, M = W * B bags (a user's window), N =
# (bag, id) pairs of one category

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import torch
from ptls.data_load.padded_batch import PaddedBatch
from ptls.nn.seq_encoder.abs_seq_encoder import AbsSeqEncoder
from ptls.nn.trx_encoder.scalers import IdentityScaler
from torch import Tensor, nn

from gur_spark.batches.aggregates import AggregateBatch, Histogram
from gur_spark.batches.layout import Layout
from gur_spark.batches.lifestream import AS_OF, EVENT_TIME, Unit, midnight, per_day
from gur_spark.errors import ModelError
from gur_spark.features.declare.manifest import missing_column
from gur_spark.features.declare.windows import DAY_HOURS
from gur_spark.models.gur.dropout import BlockDropout
from gur_spark.models.gur.layers import mlp, pooled
from gur_spark.models.gur.reconstruction import Block
from gur_spark.models.gur.sequence_inputs import Kind, Part, RunningMoments, parts_of
from gur_spark.schema import MISSING_ID, PADDING_ID


@dataclass(frozen=True)
class Pooled:
    """Pooled inputs of the encoder for a batch."""

    values_BV: Tensor
    """Values; NaN where a window has none."""
    empty_BW: Tensor
    """1 where a window has no event."""


class AutoEncoderSeqEncoder(AbsSeqEncoder):  # type: ignore[misc]  # pytorch-lifestream has no types
    """Encodes padded sequences as embeddings (B, L); in eval mode each depends on its own user alone.

    Events with ``as_of - w <= event_time < as_of`` are in the window of w days. ``as_of`` is a column of the batch,
    (B,), as ``GURDataset`` makes it, or an argument. Means leave out padding, events outside the window and missing
    values (``<number>_missing`` is 2). Statistics of the inputs are gathered in training, as BatchNorm does; a call
    has no other side effect.

    Args:
        trx_encoder: pytorch-lifestream's ``TrxEncoder``, or another module that makes (B, T, H) of a batch and has an
            ``output_size``. Set ``use_batch_norm=False``: with it, padding moves the statistics.
        time_windows: days, ascending.
        as_of: the date of all batches, where they have no column ``as_of``.
        anchor: ``last_event`` counts the windows back from each user's own last event, which is in them. For
            compatibility only: active and inactive users then look alike, and each user has another date.
        unit: unit of the times.
        dense_scale: scale of numbers of events and means of numbers, as in the configuration.
    """

    trx_encoder: Any

    def __init__(
        self,
        trx_encoder: nn.Module,
        latent_dim: int = 120,
        time_windows: Sequence[int] = (7, 30, 180),
        dropout: float = 0.1,
        *,
        as_of: date | None = None,
        anchor: Literal["as_of", "last_event"] = "as_of",
        unit: Unit = "s",
        col_time: str = EVENT_TIME,
        dense_scale: Literal["none", "signed_log1p"] = "signed_log1p",
        block_dropout: float = 0.1,
    ) -> None:
        super().__init__(is_reduce_sequence=True)
        windows = list(time_windows)
        if not windows or sorted(set(windows)) != windows or windows[0] < 1:
            raise ModelError(f"time_windows: expected ascending days, each once, got {windows}")
        if anchor not in ("as_of", "last_event") or (anchor == "last_event" and as_of is not None):
            raise ModelError(f"anchor '{anchor}' with as_of {as_of}: expected 'as_of', or 'last_event' without a date")
        self.trx_encoder, self.windows, self.latent_dim = trx_encoder, tuple(windows), latent_dim
        self._as_of = None if as_of is None else midnight(as_of, unit)
        self._last_event, self._col_time, self._day = anchor == "last_event", col_time, per_day(unit)
        self._log_scale = dense_scale == "signed_log1p"
        self.parts = parts_of(trx_encoder)
        self.dense, self.inputs = self._named_inputs()
        width = len(self.inputs)
        # Means of categories are standardised with frozen tables only, because trained tables move while they learn.
        self.moments = RunningMoments(width - len(windows), self.dense)
        self.block_dropout = BlockDropout(list(self.inputs.values()), block_dropout)
        self.encoder = mlp([width, width, max(1, width // 2), latent_dim], dropout)

    @property
    def embedding_size(self) -> int:
        """Width L of an embedding."""
        return self.latent_dim

    @property
    def category_max_size(self) -> dict[str, int]:
        """Greatest id + 1 of each category."""
        return {part.name: self.trx_encoder.embeddings[part.name].num_embeddings for part in self._of("category")}

    def forward(self, x: PaddedBatch) -> Tensor:
        if not self.is_reduce_sequence:
            raise ModelError("is_reduce_sequence=False: GUR makes one embedding of a user, none of an event")
        return self.encode(self.pool(x))

    def encode(self, pooled: Pooled) -> Tensor:
        """Embed pooled inputs, (B, L)."""
        values_BV = self.moments(pooled.values_BV)
        # A missing value becomes the mean (0 once standardised), and a flag marks it.
        there_BV = values_BV.masked_fill(values_BV.isnan(), 0.0)
        latent_BL: Tensor = self.encoder(self.block_dropout(torch.cat([there_BV, pooled.empty_BW], dim=1)))
        return latent_BL

    def pool(self, x: PaddedBatch) -> Pooled:
        """Pool a batch: numbers of events, and means of encoded events, per window."""
        inside_BWT = self.inside(x)
        widths = torch.tensor([part.width for part in self.parts], device=x.device)
        # Without events there is nothing to encode.
        nothing_BTH = torch.zeros(len(x), 0, int(widths.sum()), device=x.device)
        z_BTH: Tensor = self.trx_encoder(x).payload if inside_BWT.shape[2] else nothing_BTH
        known_BTF = self._known(x, inside_BWT[:, -1])
        # Zero times NaN is NaN, so values are filled and not multiplied.
        z_BTH = z_BTH.masked_fill(~known_BTF.repeat_interleave(widths, dim=2), 0.0)
        within_BWT = inside_BWT.to(z_BTH.dtype)
        counts_BWF = within_BWT @ known_BTF.to(z_BTH.dtype)
        sums_BWH = within_BWT @ z_BTH
        means_BWH = sums_BWH / counts_BWF.repeat_interleave(widths, dim=2)
        of_part = torch.split(means_BWH, [part.width for part in self.parts], dim=2)
        return self._joined(within_BWT.sum(2), {p.name: m_BWE for p, m_BWE in zip(self.parts, of_part, strict=True)})

    def histograms(self, x: PaddedBatch) -> dict[str, Histogram]:
        """Collect, by category, the ids of the events in each window, bag by bag, uncounted: an id may stand twice."""
        found = {}
        inside_WBT = self.inside(x).transpose(0, 1)
        for part in self._of("category"):
            ids_BT = self.trx_encoder.get_category_indexes(x, part.name)
            has_MT = (inside_WBT & (ids_BT != PADDING_ID)).flatten(0, 1)
            bags_N, places_N = has_MT.nonzero(as_tuple=True)
            counts_M = has_MT.sum(1)
            found[part.name] = Histogram(
                ids_N=ids_BT[bags_N % len(x), places_N],
                bags_N=bags_N,
                shares_N=(1 / counts_M)[bags_N],
                offsets_M=torch.cat([counts_M.new_zeros(1), counts_M.cumsum(0)]),
                filled_M=counts_M > 0,
            )
        return found

    def inside(self, x: PaddedBatch) -> Tensor:
        """Mark the events of each window, bool (B, W, T)."""
        time_BT = x.payload[self._col_time]
        if time_BT.dtype != torch.int64:
            raise ModelError(f"'{self._col_time}' is {time_BT.dtype}; expected torch.int64, which no time overflows")
        there_BT = torch.arange(time_BT.shape[1], device=time_BT.device) < x.seq_lens[:, None]
        age_BT = self._as_of_users(x, time_BT, there_BT)[:, None] - time_BT
        days_W = torch.tensor(self.windows, device=time_BT.device)
        past_BT = there_BT & (age_BT > 0)
        inside_BWT: Tensor = past_BT[:, None] & (age_BT[:, None] <= days_W[:, None] * self._day)
        return inside_BWT

    @torch.no_grad()
    def encode_aggregates(self, batch: AggregateBatch, layout: Layout) -> Tensor:
        """Embed aggregates with the same weights, (B, L); their events would have the same embeddings.

        Raises:
            ModelError: the aggregates have other windows or fields, or numbers are not averaged as they are.
        """
        if layout.manifest.windows != self.windows:
            raise ModelError(f"the encoder has windows {self.windows}, the aggregates {layout.manifest.windows}")
        columns = {column.name: number for number, column in enumerate(layout.dense)}

        def dense(name: str) -> Tensor:
            names = [f"{name}_{days}d" for days in self.windows]
            if missing := [column for column in names if column not in columns]:
                raise ModelError(f"columns {missing} are not in the aggregates")
            return batch.dense_BD[:, [columns[column] for column in names]]

        means = {part.name: dense(f"{part.column}_mean")[..., None] for part in self._of("number")}
        self._check_averaged()
        for part in self._of("category"):
            size = self.trx_encoder.embeddings[part.name].num_embeddings
            if layout.sizes.get(part.column) != size:
                raise ModelError(f"'{part.column}': {size} ids in the encoder, {layout.sizes.get(part.column)} here")
            means[part.name] = self._bag_means(part, batch.histograms[part.column])
        return self.encode(self._joined(dense("events"), means))

    def _bag_means(self, part: Part, histogram: Histogram) -> Tensor:
        """Mean embedding of each window's histogram, (B, W, E)."""
        means_ME = pooled(self.trx_encoder.embeddings[part.name].weight, histogram)
        means_ME = means_ME.masked_fill(~histogram.filled_M[:, None], torch.nan)
        return means_ME.view(len(self.windows), -1, part.width).transpose(0, 1)

    def _check_averaged(self) -> None:
        others = [part.name for part in self.parts if part.kind == "event"]
        others += [
            p.name for p in self._of("number") if type(self.trx_encoder.custom_embeddings[p.name]) is not IdentityScaler
        ]
        if others or getattr(self.trx_encoder, "custom_embedding_batch_norm", None) is not None:
            raise ModelError(
                "aggregates hold averages of the numbers themselves: numeric_values must be 'identity', without "
                f"use_batch_norm and linear_projection_size{f'; not so: {others}' if others else ''}"
            )

    def _joined(self, events_BW: Tensor, means: Mapping[str, Tensor]) -> Pooled:
        """Join values in the order of ``inputs``."""
        dense_BD = torch.cat([events_BW, *(means[part.name].flatten(1) for part in self._of("number"))], dim=1)
        if self._log_scale:
            dense_BD = dense_BD.sign() * dense_BD.abs().log1p()
        others = [means[part.name].flatten(1) for part in self.parts if part.kind != "number"]
        return Pooled(torch.cat([dense_BD, *others], dim=1), (events_BW == 0).to(events_BW.dtype))

    def _named_inputs(self) -> tuple[int, dict[str, Block]]:
        """Count the dense inputs, and name each input with the block that it is dropped with."""
        hours = {days: days * DAY_HOURS for days in self.windows}
        named = {f"events_{d}d": Block(h, None) for d, h in hours.items()}
        named |= {f"{p.name}_mean_{d}d": Block(h, p.name) for p in self._of("number") for d, h in hours.items()}
        dense = len(named)
        others = [part for part in self.parts if part.kind != "number"]
        named |= {
            f"{p.name}_{d}d_{e}": Block(h, p.name) for p in others for d, h in hours.items() for e in range(p.width)
        }
        return dense, named | {f"empty_{d}d": Block(h, None) for d, h in hours.items()}

    def _of(self, kind: Kind) -> list[Part]:
        return [part for part in self.parts if part.kind == kind]

    def _known(self, x: PaddedBatch, inside_BT: Tensor) -> Tensor:
        """Mark the events of the longest window that have each part, bool (B, T, F)."""
        known = []
        for part in self.parts:
            missing_BT = x.payload.get(missing_column(part.column))
            if part.kind == "category":
                known.append(inside_BT & (x.payload[part.column] != PADDING_ID))
            elif part.kind == "number" and missing_BT is not None:
                known.append(inside_BT & (missing_BT != MISSING_ID))
            else:
                known.append(inside_BT)
        return torch.stack(known, dim=2)

    def _as_of_users(self, x: PaddedBatch, time_BT: Tensor, there_BT: Tensor) -> Tensor:
        """Read each user's as_of, (B,)."""
        if self._last_event:
            if not time_BT.shape[1]:
                return time_BT.new_zeros(len(x))
            # Just after the last event, so that it is in the windows.
            return time_BT.masked_fill(~there_BT, torch.iinfo(torch.int64).min // 2).amax(1) + 1
        as_of_B: Tensor | None = x.payload.get(AS_OF)
        if as_of_B is None:
            if self._as_of is None:
                raise ModelError(
                    "no as_of: give it to the data set or to the encoder, or have it as a column of the data; "
                    "anchor='last_event' counts from each user's last event"
                )
            return time_BT.new_full((len(x),), self._as_of)
        if as_of_B.dtype != torch.int64:
            raise ModelError(f"'{AS_OF}' is {as_of_B.dtype}; expected torch.int64")
        if self._as_of is not None and bool((as_of_B != self._as_of).any()):
            raise ModelError(
                f"the batch has as_of {sorted(set(as_of_B.tolist()))}, the encoder {self._as_of}; give one"
            )
        return as_of_B
