"""Files of an artefact folder, and the digests that show whether they were altered."""

from collections.abc import Mapping
from hashlib import sha256

from gur_spark import storage
from gur_spark.errors import ModelError

WEIGHTS, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
VOCABULARY, METRICS, CARD = "vocabulary.json", "metrics.json", "card.json"
CONTENT = (WEIGHTS, CONFIG, MANIFEST, VOCABULARY, METRICS)
"""Files that define a version."""
EPOCHS, DIMENSIONS, MODEL_CARD = "epochs.json", "dimensions.json", "MODEL_CARD.md"
"""Further files, which are not needed to score."""


def pack(path: str) -> dict[str, bytes]:
    """Read the files of the model version in this folder, to be shipped to workers.

    Raises:
        ModelError: a file is missing.
    """
    files = {}
    for name in (CARD, *CONTENT):
        try:
            files[name] = storage.read_bytes(storage.join(path, name))
        except FileNotFoundError as error:
            raise ModelError(f"model {path}: {name} is missing; expected {', '.join((CARD, *CONTENT))}") from error
    return files


def content_hash(files: Mapping[str, bytes]) -> str:
    """Hash the content of a version to eight hex digits, the end of its name."""
    return sha256(b"".join(sha256(files[name]).digest() for name in CONTENT)).hexdigest()[:8]
