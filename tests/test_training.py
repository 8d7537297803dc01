import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from lightning_utilities.core import rank_zero

from gur_spark.batches.layout import Layout
from gur_spark.errors import SnapshotError, TrainingError
from gur_spark.models.gur import train as train_module
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.scorer import GurScorer
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.gur.train import GurLearner, TrainingRows
from gur_spark.models.kind import Fitted
from gur_spark.registry.artefact import load_model
from gur_spark.splits import held_out
from gur_spark.training import version as version_module
from gur_spark.training.fit import LearnerModule, _quiet, accelerator, alone, fingerprint
from gur_spark.training.version import TrainedVersion
from tests import versions
from tests.aggregate_data import SIZES, make_snapshot, random_events, tiny_manifest, to_rows, write_snapshot
from tests.versions import MODEL

FROZEN_MSE = MODEL.model_copy(update={"loss": {"mse": 1.0}, "tables": "frozen"})
# Seven epochs: the learning rate falls after the fifth.
TRAINING = versions.TRAINING.model_copy(update={"epochs": 7})


def trained(snapshots: list[str], folder: Path, model: GurModel = MODEL, **changes: Any) -> TrainedVersion:
    return versions.trained_version(snapshots, folder, model, TRAINING.model_copy(update=changes))


def module_of(made: TrainedVersion) -> GUR:
    scorer = load_model(made.path).scorer
    assert isinstance(scorer, GurScorer)
    return scorer.module


def weights(made: TrainedVersion) -> str:
    return hashlib.sha256((Path(made.path) / "model.safetensors").read_bytes()).hexdigest()


def epoch_losses(made: TrainedVersion) -> list[dict[str, float]]:
    """One entry per epoch."""
    found: list[dict[str, float]] = json.loads((Path(made.path) / "epochs.json").read_text())
    return found


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_snapshot(tmp_path_factory.mktemp("data") / "snapshot", users=300)


@pytest.fixture(scope="module")
def uninterrupted(snapshot: str, tmp_path_factory: pytest.TempPathFactory) -> TrainedVersion:
    return trained([snapshot], tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("model", [MODEL, FROZEN_MSE, MODEL.model_copy(update={"tables": "frozen"})])
def test_the_loss_falls_and_structure_is_reconstructed(
    model: GurModel, snapshot: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="gur_spark"):
        made = trained([snapshot], tmp_path, model)
    lines = [record for record in caplog.records if record.name == "gur_spark" and isinstance(record.args, tuple)]
    losses = [line.args[2] for line in lines if str(line.msg).startswith("epoch")]  # type: ignore[index]
    best = losses.index(min(losses)) + 1
    assert f"trained {made.version}: best epoch {best} of 7, validation loss {min(losses):.4g}" in caplog.text
    assert "hardly learned" not in caplog.text
    assert made.metrics["epochs"] == len(losses) == 7
    assert made.metrics["validation_loss"] == pytest.approx(min(losses))
    assert min(losses) < 0.8 * losses[0]
    assert made.metrics["r2"] > 0.3
    blocks = {f"r2_{name}{w}d" for name in ("", "amount_", *(f"{field}_" for field in SIZES)) for w in (7, 30)}
    assert set(made.metrics) == {
        "validation_loss",
        "epochs",
        "train_rows",
        "validation_rows",
        "r2",
        "linear_variance",
        *(f"validation_{name}" for name in model.loss),
        *blocks,
    }
    assert made.metrics["train_rows"] + made.metrics["validation_rows"] == 300
    assert load_model(made.path).metrics == made.metrics
    assert Path(made.checkpoints).parent == tmp_path / "work"


def test_without_dropout_the_training_loss_is_that_of_the_steps_and_with_it_lower(
    snapshot: str, tmp_path: Path
) -> None:
    def losses_of(name: str, dropout: float) -> dict[str, float]:
        model = MODEL.model_copy(update={"dropout": dropout, "block_dropout": dropout})
        # A step that changes nothing: both losses are of the same weights.
        made = trained([snapshot], tmp_path / name, model, epochs=1, learning_rate=1e-9)
        [epoch] = json.loads((Path(made.path) / "epochs.json").read_text())
        return epoch  # type: ignore[no-any-return]

    plain, dropped = losses_of("plain", 0.0), losses_of("dropped", 0.5)
    assert plain["train_loss_evaluated"] == pytest.approx(plain["train_loss"], rel=1e-5)
    assert dropped["train_loss_evaluated"] == pytest.approx(plain["train_loss_evaluated"], rel=1e-5)
    assert dropped["train_loss"] != pytest.approx(dropped["train_loss_evaluated"], rel=1e-3)


def test_a_training_whose_first_epoch_was_the_best_warns_and_names_remedies(caplog: pytest.LogCaptureFixture) -> None:
    def warnings_of(*losses: float) -> list[str]:
        caplog.clear()
        epochs = [{"validation_loss": loss} for loss in losses]
        version_module._log_best_epoch("gur-1", Fitted(metrics={}, epochs=epochs, checkpoints=""))
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    [said] = warnings_of(1.0, 1.5, 1.0)
    assert said.startswith("gur-1 hardly learned")
    assert "smaller training.learning_rate" in said
    assert warnings_of(1.0) == warnings_of(1.0, 0.9, 1.2) == []


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_tips_of_lightning_are_silent_under_either_name_of_the_package(
    package: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking = logging.getLogger(f"{package}.utilities.rank_zero")
    monkeypatch.setattr(rank_zero, "log", speaking)
    with caplog.at_level(logging.INFO), _quiet():
        rank_zero.rank_zero_info("a tip")
        speaking.error("an error")
    assert [record.getMessage() for record in caplog.records] == ["an error"]


def test_the_same_seed_and_data_give_the_same_bytes_and_another_seed_others(
    snapshot: str, uninterrupted: TrainedVersion, tmp_path: Path
) -> None:
    assert weights(trained([snapshot], tmp_path / "same")) == weights(uninterrupted)
    assert weights(trained([snapshot], tmp_path / "other", seed=2)) != weights(uninterrupted)


def test_standardisation_and_weights_come_from_training_users_only(tmp_path: Path) -> None:
    events = random_events(200, SIZES, ["amount"], seed=5, longest=30)
    validation = held_out(pa.array(range(200)), TRAINING.validation_share, f"validation {TRAINING.seed}")
    louder = [
        [{**event, "amount": 1e6} for event in of_user] if side else of_user
        for of_user, side in zip(events, validation, strict=True)
    ]
    found = []
    for name, of_users in (("plain", events), ("loud", louder)):
        path = write_snapshot(tmp_path / name, to_rows(of_users, tiny_manifest()), tiny_manifest())
        found.append(weights(trained([path], tmp_path / name, epochs=1)))
    assert found[0] == found[1]


def test_training_stops_early_and_keeps_the_best_epoch(snapshot: str, tmp_path: Path) -> None:
    made = trained([snapshot], tmp_path, epochs=60, learning_rate=0.05, patience=2)
    assert made.metrics["epochs"] < 60
    again = trained([snapshot], tmp_path, epochs=int(made.metrics["epochs"]) - 2, learning_rate=0.05, patience=2)
    assert weights(again) == weights(made)


def test_weight_decay_takes_its_share_of_every_weight_at_every_step(snapshot: str, tmp_path: Path) -> None:
    # One epoch of one batch: what the decay takes off is learning rate * decay * the weight as it was drawn.
    once = {"epochs": 1, "batch_size": 512}
    plain, decayed = (
        module_of(trained([snapshot], tmp_path / str(decay), weight_decay=decay, **once)).state_dict()
        for decay in (0.0, 2.0)
    )
    torch.manual_seed(TRAINING.seed)
    drawn = GUR(Layout.of(tiny_manifest(), SIZES), MODEL).double().state_dict()
    for name in ("encoder.0.weight", "inputs.tables.of_mcc.weight"):
        expected = plain[name] - 2.0 * TRAINING.learning_rate * drawn[name]
        torch.testing.assert_close(decayed[name], expected, atol=1e-6, rtol=1e-4)


def test_several_snapshots_are_trained_on_together(snapshot: str, tmp_path: Path) -> None:
    other = make_snapshot(tmp_path / "other", users=100, seed=9)
    made = trained([snapshot, other], tmp_path, epochs=1)
    assert made.metrics["train_rows"] + made.metrics["validation_rows"] == 400
    assert made.card.training_snapshots == (snapshot, other)


@pytest.mark.parametrize("epoch", [1, 6])
def test_a_run_broken_off_continues_to_the_same_weights(
    snapshot: str, uninterrupted: TrainedVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    step = LearnerModule.training_step

    def broken(self: Any, batch: Any, number: int) -> Any:
        if self.current_epoch == epoch and number == 3:
            raise KeyboardInterrupt
        return step(self, batch, number)

    monkeypatch.setattr(LearnerModule, "training_step", broken)
    with pytest.raises(BaseException):  # noqa: B017,PT011 Lightning turns an interrupt into its own exit
        trained([snapshot], tmp_path)
    assert not (tmp_path / "out").exists()
    trained_epochs: list[int] = []

    def counted(self: Any, batch: Any, number: int) -> Any:
        trained_epochs.append(self.current_epoch)
        return step(self, batch, number)

    monkeypatch.setattr(LearnerModule, "training_step", counted)
    made = trained([snapshot], tmp_path)
    assert weights(made) == weights(uninterrupted)
    assert epoch_losses(made) == epoch_losses(uninterrupted)
    assert [of["epoch"] for of in epoch_losses(made)] == list(range(1, 8))
    assert sorted(set(trained_epochs)) == list(range(epoch, 7))


@pytest.mark.parametrize("changes", [{}, {"epochs": 60, "learning_rate": 0.05, "patience": 2}])
def test_a_run_killed_before_it_saved_trains_no_further(
    snapshot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    expected = trained([snapshot], tmp_path / "whole", **changes)

    def killed(*_: Any, **__: Any) -> Any:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(version_module, "save", killed)
        with pytest.raises(SystemExit):
            trained([snapshot], tmp_path, **changes)
    monkeypatch.setattr(LearnerModule, "training_step", killed)
    made = trained([snapshot], tmp_path, **changes)
    assert (weights(made), made.metrics) == (weights(expected), expected.metrics)


KILLED = """
import sys
from pathlib import Path
from tests.test_training import trained
trained([sys.argv[1]], Path(sys.argv[2]))
"""


def kill_after_an_epoch(command: list[str], folder: Path) -> None:
    """Run a script that trains in the folder, and kill it as soon as there is a checkpoint."""
    root = Path(__file__).parents[1]
    process = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    while not list((folder / "work").glob("*/last.ckpt")):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_a_killed_process_is_continued_to_the_same_weights(
    snapshot: str, uninterrupted: TrainedVersion, tmp_path: Path
) -> None:
    kill_after_an_epoch([sys.executable, "-c", KILLED, snapshot, str(tmp_path)], tmp_path)
    assert weights(trained([snapshot], tmp_path)) == weights(uninterrupted)


def test_a_checkpoint_of_other_settings_or_of_another_network_is_not_continued(snapshot: str) -> None:
    layout = Layout.of(tiny_manifest(), SIZES)

    def name(
        model: GurModel = MODEL, network: GurModel = MODEL, vocabulary: str = "hash", seed: int = TRAINING.seed
    ) -> str:
        training = TRAINING.model_copy(update={"seed": seed})
        rows = TrainingRows.of([snapshot], layout, training, model)
        depends_on = train_module._depends_on(rows, model, vocabulary)
        return fingerprint(GurLearner(GUR(layout, network), rows), training, depends_on)

    wider = MODEL.model_copy(update={"latent_dim": MODEL.latent_dim + 1})
    different = [name(), name(FROZEN_MSE), name(network=wider), name(vocabulary="other"), name(seed=TRAINING.seed + 1)]
    assert name() == different[0]
    assert len(set(different)) == len(different)


def test_nothing_is_printed_and_no_folder_is_left(
    snapshot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    trained([snapshot], tmp_path / "made", epochs=1)
    assert capfd.readouterr() == ("", "")
    assert [f.name for f in tmp_path.iterdir()] == ["made"]
    assert torch.get_num_threads() == threads


def test_a_progress_bar_is_shown_when_asked(snapshot: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    versions.trained_version([snapshot], tmp_path, progress=True)
    assert "Epoch 0" in "".join(capfd.readouterr())


def test_a_loss_that_is_not_finite_stops_training_and_saves_nothing(snapshot: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at epoch 1, step \d+; nothing was saved"):
        trained([snapshot], tmp_path, FROZEN_MSE, learning_rate=1e38)
    assert not (tmp_path / "out").exists()


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    rows = to_rows(random_events(50, SIZES, ["amount"], seed=0, longest=30), tiny_manifest())
    position = rows.schema.get_field_index("amount_sum_7d")
    rows = rows.set_column(position, "amount_sum_7d", pa.array([float("inf")] * 50))
    path = write_snapshot(tmp_path / "s", rows, tiny_manifest())
    with pytest.raises(TrainingError, match="'amount_sum_7d' has values that are not finite"):
        trained([path], tmp_path)


def test_an_empty_snapshot_is_refused(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path / "s", to_rows([], tiny_manifest()), tiny_manifest())
    with pytest.raises(SnapshotError, match="is empty"):
        trained([path], tmp_path)


@pytest.mark.parametrize(("share", "side"), [(0.001, "validation"), (0.999, "training")])
def test_an_empty_side_of_the_split_is_refused(tmp_path: Path, share: float, side: str) -> None:
    path = make_snapshot(tmp_path / "s", users=5)
    with pytest.raises(TrainingError, match=f"no user is on the {side} side: 5 rows"):
        trained([path], tmp_path, validation_share=share)


def test_no_snapshot_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no snapshot"):
        trained([], tmp_path)


def test_snapshots_of_different_manifests_are_refused_naming_the_columns(snapshot: str, tmp_path: Path) -> None:
    other = make_snapshot(tmp_path / "other", manifest=tiny_manifest(numeric=("amount", "balance")), users=5)
    with pytest.raises(SnapshotError, match="differ in balance_count_30d, balance_count_7d"):
        trained([snapshot, other], tmp_path)


def test_a_damaged_or_missing_manifest_is_refused(tmp_path: Path) -> None:
    path = make_snapshot(tmp_path / "s", users=5)
    file = Path(path) / "manifest.json"
    content = file.read_text()
    for damaged in (content[:100], content.replace("amount", "amouns"), "[]", ""):
        file.write_text(damaged)
        with pytest.raises(SnapshotError, match=r"manifest\.json is damaged"):
            trained([path], tmp_path)
    file.unlink()
    with pytest.raises(SnapshotError, match="is not a snapshot"):
        trained([path], tmp_path)


def test_a_gpu_that_is_not_there_is_an_error(snapshot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="torch finds no GPU"):
        trained([snapshot], tmp_path, device="gpu")
    assert accelerator("auto") == "cpu"


def test_of_two_equal_trainings_at_once_the_second_is_refused(snapshot: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    with alone(folder):
        with pytest.raises(TrainingError, match="another process trains by the same inputs"), alone(folder):
            pass
        with alone(f"{folder} of another"):
            pass
    with alone(folder):
        pass
