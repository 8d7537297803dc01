import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from gur_spark.spaces.alignment import Alignment
from safetensors.torch import load, save

from gur_spark.batches.layout import Layout
from gur_spark.config.training import Training
from gur_spark.errors import ModelError
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.settings import LEARNS, GurModel, Loss
from gur_spark.models.kind import Form
from gur_spark.registry import artefact as registry
from gur_spark.registry import card as model_card
from gur_spark.serving.workers import check_fit
from gur_spark.snapshots.visible import Snapshot
from tests.aggregate_data import SIZES, random_events, tiny_manifest, to_rows

MODEL = GurModel(
    latent_dim=6, dropout=0.1, block_dropout=0.1, loss={"likelihood": 1.0}, tables="trained", dense_scale="none"
)
TRAINING = Training(
    epochs=1, batch_size=8, learning_rate=0.1, patience=1, validation_share=0.2, seed=1, device="cpu", threads=1
)
FILES = (registry.CARD, *registry.CONTENT)
LOSSES = [
    {"epoch": 1, "train_loss": 3.0, "validation_loss": 2.5},
    {"epoch": 2, "train_loss": 2.0, "validation_loss": 2.25},
]


def saved(parent: Path, **more: Any) -> str:
    torch.manual_seed(0)
    layout = Layout.of(tiny_manifest(), SIZES)
    card = registry.save(
        str(parent),
        GUR(layout, MODEL),
        layout=layout,
        model=MODEL,
        training=TRAINING,
        vocabulary_version=3,
        vocabulary_hash="abc",
        metrics={"r2": 0.5, "r2_amount_7d": 0.75, "train_rows": 1234.0, "validation_rows": 56.0, "epochs": 2.0},
        training_snapshots=("one", "two"),
        training_dates=("2024-05-01", "2024-06-01"),
        epochs=LOSSES,
        code_commit="c0ffee",
        **more,
    )
    return str(parent / card.model_version)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return saved(tmp_path)


def rows(users: int = 20) -> pa.RecordBatch:
    return to_rows(random_events(users, SIZES, ["amount"], seed=3, longest=30), tiny_manifest())


def test_what_was_saved_is_what_is_loaded(path: str) -> None:
    loaded = registry.load_model(path)
    assert Path(path).name == loaded.version
    assert (loaded.manifest, loaded.sizes) == (tiny_manifest(), SIZES)
    assert (loaded.model, loaded.training) == (MODEL, TRAINING)
    assert (loaded.vocabulary_version, loaded.vocabulary_hash) == (3, "abc")
    assert (loaded.metrics["r2"], loaded.latent_dim) == (0.5, 6)
    assert json.loads((Path(path) / registry.EPOCHS).read_text()) == LOSSES
    card = loaded.card
    assert (card.kind, card.training_snapshots, card.code_commit) == ("gur", ("one", "two"), "c0ffee")
    torch.manual_seed(0)
    original = GUR(loaded.layout, MODEL).state_dict()
    assert all(torch.equal(tensor.float(), original[name]) for name, tensor in loaded.module.state_dict().items())


def test_the_same_content_has_the_same_suffix_and_files_hold_no_pickle(path: str, tmp_path: Path) -> None:
    again = saved(tmp_path / "again")
    assert Path(again).name[-8:] == Path(path).name[-8:]
    assert sorted(file.name for file in Path(path).iterdir()) == sorted([*FILES, registry.EPOCHS, registry.MODEL_CARD])


def test_loading_runs_no_pickle_and_a_pickle_in_the_place_of_weights_is_refused_unread(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    torch.save({"encoder.0.weight": _Opened(opened)}, tmp_path / "weights.pt")
    (tmp_path / "weights.pickle").write_bytes(pickle.dumps(_Opened(opened)))

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refused)
    assert registry.load_model(path).embed(rows()).shape == (20, 6)
    for name in ("weights.pt", "weights.pickle"):
        with pytest.raises(ModelError, match="cannot be read"):
            registry.unpack(forged(path, registry.WEIGHTS, (tmp_path / name).read_bytes()))
    assert not opened.exists()


class _Opened:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


SNAPSHOT = Snapshot(
    form=Form.AGGREGATES, as_of=date(2024, 6, 1), known_at=datetime(2024, 6, 1, tzinfo=UTC), path="",
    manifest_hash=tiny_manifest().hash,
    vocabulary_version=3, vocabulary_hash="abc", lineage="", rows=1, checksum="",
)  # fmt: skip


def test_aggregates_of_another_manifest_or_vocabulary_are_refused_by_name(path: str, tmp_path: Path) -> None:
    model = registry.load_model(path)
    check_fit(model, SNAPSHOT)
    other = tiny_manifest(windows=(7, 60))
    (tmp_path / "manifest.json").write_text(other.to_json())
    with pytest.raises(ModelError, match=rf"manifest .* has {other.hash}; they differ in active_days_30d"):
        check_fit(model, replace(SNAPSHOT, path=str(tmp_path), manifest_hash=other.hash))
    with pytest.raises(ModelError, match=r"3 \(abc\), .* has 4 \(abd\); aggregate again with --vocabulary 3"):
        check_fit(model, replace(SNAPSHOT, vocabulary_version=4, vocabulary_hash="abd"))


def test_the_model_card_tells_people_what_it_is_and_is_no_part_of_what_is_loaded(path: str, tmp_path: Path) -> None:
    text = (Path(path) / registry.MODEL_CARD).read_text()
    for told in (
        f"# {Path(path).name}",
        "Users as they were on 2024-05-01, 2024-06-01",
        "Seen until: events before 2024-06-01",
        "Rows: 1,234 train and 56 validation",
        "Windows: 7, 30 days",
        "Number `amount`: in steps of 0.01",
        "Category `mcc`: 9 ids",
        f"Manifest `{tiny_manifest().hash}`, vocabulary 3 (abc)",
        "Loss `likelihood`, weight 1",
        "2.5000 after the first epoch, 2.2500 after the best (2)",
        "| R2 of all blocks | 0.500 |",
        "| R2 amount 7d | 0.750 |",
        "Its own: no other version's embeddings",
        "## Intended use and limits",
        f'version="{Path(path).name}"',
    ):
        assert told in text
    aligned = saved(
        tmp_path / "aligned", alignment=Alignment("older", np.eye(6), np.zeros(6), 0.3, 99), seen_until=date(2024, 7, 1)
    )
    text = (Path(aligned) / registry.MODEL_CARD).read_text()
    assert "Aligned to `older` by a rotation and a shift" in text
    card, on_a_sphere = registry.load_model(aligned).card, MODEL.model_copy(update={"unit_norm": True})
    assert "Aligned to `older` by a rotation: a model" in model_card._space(card, on_a_sphere, {})
    assert "Seen until: events before 2024-07-01 (UTC midnight), what follows the dates above included" in text
    assert LEARNS.keys() == set(get_args(Loss))
    for name in (registry.MODEL_CARD, registry.EPOCHS):
        (Path(path) / name).unlink()
    assert registry.load_model(path).version == Path(path).name


def test_embedding_in_batches_of_any_size_gives_the_same(path: str) -> None:
    loaded = registry.load_model(path)
    whole = loaded.embed(rows())
    assert (whole.shape, whole.dtype) == ((20, 6), np.float32)
    for size in (1, 7):
        parts = [loaded.embed(rows().slice(start, size)) for start in range(0, 20, size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6, rtol=0)
    assert loaded.embed(rows().slice(0, 0)).shape == (0, 6)


def test_a_packed_model_embeds_as_the_one_on_disk(path: str) -> None:
    unpacked = registry.unpack(registry.pack(path))
    np.testing.assert_array_equal(unpacked.embed(rows()), registry.load_model(path).embed(rows()))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(path: str, name: str) -> None:
    (Path(path) / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        registry.load_model(path)


@pytest.mark.parametrize("name", registry.CONTENT)
@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: content + b" ", lambda content: b""])
def test_a_file_that_was_altered_or_cut_short_is_named(path: str, name: str, damage: Callable[[bytes], bytes]) -> None:
    file = Path(path) / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=f"{name} was altered or cut short"):
        registry.load_model(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"sha256": {}}'])
def test_a_damaged_card_is_refused(path: str, content: bytes) -> None:
    (Path(path) / registry.CARD).write_bytes(content)
    with pytest.raises(ModelError, match=r"card\.json cannot be read"):
        registry.load_model(path)


def test_content_of_another_version_under_this_ones_name_is_refused(path: str) -> None:
    file = Path(path) / registry.CARD
    card = json.loads(file.read_text())
    file.write_text(json.dumps({**card, "model_version": "gur-20240101T000000-00000000"}))
    with pytest.raises(ModelError, match="the files are those of another version"):
        registry.load_model(path)


def forged(path: str, name: str, content: bytes) -> dict[str, bytes]:
    """The model with one file exchanged, and a card that agrees."""
    files = {**registry.pack(path), name: content}
    card: dict[str, Any] = json.loads(files[registry.CARD])
    card["sha256"] = {n: registry.sha256(files[n]).hexdigest() for n in registry.CONTENT}
    card["model_version"] = f"gur-20240101T000000-{registry._content_hash(files)}"
    return {**files, registry.CARD: json.dumps(card).encode()}


def test_weights_of_another_shape_or_name_are_listed(path: str) -> None:
    weights = load(registry.pack(path)[registry.WEIGHTS])
    weights["encoder.0.weight"] = torch.zeros(2, 2)
    weights["surprise"] = weights.pop("encoder.0.bias")
    with pytest.raises(ModelError) as refused:
        registry.unpack(forged(path, registry.WEIGHTS, save(weights)))
    lines = [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]]
    assert lines == ["encoder.0.bias", "encoder.0.weight", "surprise"]
    assert "encoder.0.weight: expected" in str(refused.value)
    assert "got (2, 2)" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (registry.WEIGHTS, b"no tensors"),
        (registry.CONFIG, b'{"model": {}}'),
        (registry.MANIFEST, tiny_manifest().to_json().replace("amount", "amouns").encode()),
        (registry.VOCABULARY, b'{"version": 1}'),
        (registry.METRICS, b"{"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(path: str, name: str, content: bytes) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        registry.unpack(forged(path, name, content))


def test_rows_of_another_manifest_are_refused(path: str) -> None:
    with pytest.raises(ModelError, match="'amount_count_7d' is not in the snapshot"):
        registry.load_model(path).embed(rows().drop_columns(["amount_count_7d"]))
