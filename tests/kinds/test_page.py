"""The kind that ``docs/kinds.md`` builds step by step trains and embeds."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gur_spark import models
from gur_spark.arrays import matrix
from gur_spark.config.training import Training
from gur_spark.models.catalogue import MODULES, find
from gur_spark.models.kind import Kind, TrainingInputs, VocabularyRef
from gur_spark.registry.artefact import Origin, load_model
from gur_spark.training.version import train_version
from tests.sequence_data import AS_OF, SIZES, random_users, to_rows, write_snapshot

PAGE = Path(__file__).parents[2] / "docs/kinds.md"


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    """The page's files as the package ``gur_spark.models.mine``, in the catalogue."""
    package = tmp_path / "mine"
    package.mkdir()
    for name, code in re.findall(
        r"```python\n# gur_spark/models/mine/(\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL
    ):
        (package / name).write_text(code)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.setitem(MODULES, "mine", "gur_spark.models.mine")
    yield find("mine")
    find.cache_clear()
    for name in [name for name in sys.modules if name.startswith("gur_spark.models.mine")]:
        del sys.modules[name]


def test_the_kind_of_the_page_trains_and_embeds_users_without_regard_to_batch_mates(kind: Kind, tmp_path: Path) -> None:
    folder = str(write_snapshot(tmp_path / "snapshot", random_users(60)))
    inputs = TrainingInputs(
        snapshots=[folder],
        folders=[folder],
        vocabulary=VocabularyRef(version=1, hash="v", sizes=SIZES),
        model=kind.config(latent_dim=8),
        training=Training(
            epochs=3,
            batch_size=20,
            learning_rate=0.01,
            patience=3,
            validation_share=0.25,
            seed=3,
            device="cpu",
            threads=1,
        ),
    )
    origin = Origin(snapshots=(folder,), dates=(str(AS_OF),), seen_until=AS_OF)
    made = train_version(kind, inputs, origin, str(tmp_path / "checkpoints"), str(tmp_path / "artefacts"))
    scorer, rows = load_model(made.path).scorer, to_rows(random_users(20, seed=1))
    together = scorer.score(rows)["embeddings"]
    assert matrix(together["embedding"]).shape == (20, 8)
    alone = pa.Table.from_batches([scorer.score(rows.slice(n, 1))["embeddings"] for n in range(20)])
    np.testing.assert_allclose(matrix(alone["embedding"]), matrix(together["embedding"]), atol=1e-6, rtol=0)
