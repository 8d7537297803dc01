"""The Spark side never imports torch, the torch side never pyspark; checked on the imports as written."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gur_spark"

SPARK = {"pyspark", "delta"}
TORCH = {"torch", "lightning", "safetensors", "ptls"}

# Modules that see neither: the seam, and what both sides use.
NEUTRAL = {
    "__init__",
    "cli",
    "config.section",
    "features.declare.manifest",
    "models.kind",
    "models.catalogue",
    "config.pipeline",
    "config.file",
    "errors",
    "extras",
    "registry.card",
    "consumers.nearest",
    "spaces.mapping",
    "schema",
    "snapshots.files",
    "splits",
    "storage",
    "synthetic",
    "synthetic_profiles",
    "features.states.tiles",
    "features.checksum",
    "features.continued",
    "features.states.exact",
    "features.kernel",
    "features.merging",
    "features.packing",
    "features.states.advance",
    "features.states.base",
    "statistics.bootstrap",
    "evaluate.page",
    "evaluate.plots",
    "evaluate.pooling",
    "evaluate.report",
    "evaluate.segments",
    "config.evaluation",
    "evaluate.small_models",
    "evaluate.tasks",
    "evaluate.__init__",
    "monitoring.__init__",
    "monitoring.drift",
    "monitoring.features",
    "monitoring.findings",
    "statistics.measures",
    "monitoring.page",
    "monitoring.plots",
    "config.monitoring",
    "pages",
    "batches.aggregates",
    "batches.columns",
    "batches.__init__",
    "models.gur.cooccurrence",
    "training.__init__",
    "models.__init__",
    "events.__init__",
    "features.__init__",
}
BOTH = {"serving.workers", "serving.scoring", "serving.live"}


@cache
def modules() -> dict[str, Path]:
    return {str(f.relative_to(PACKAGE).with_suffix("")).replace("/", "."): f for f in sorted(PACKAGE.rglob("*.py"))}


@cache
def imported(file: Path) -> set[str]:
    """Every module a file imports at run time, `if TYPE_CHECKING` left out."""
    tree = ast.parse(file.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def reached(name: str, seen: set[str]) -> set[str]:
    """Third-party roots that a module brings in, through the package's own modules too."""
    seen.add(name)
    roots: set[str] = set()
    for target in imported(modules()[name]):
        inner = target.removeprefix("gur_spark.")
        if target.startswith("gur_spark.") and inner in modules():
            roots |= reached(inner, seen) if inner not in seen else set()
        elif not target.startswith("gur_spark"):
            roots.add(target.split(".")[0])
    return roots


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_stays_on_its_side(name: str) -> None:
    roots = reached(name, set())
    if name in BOTH:
        return
    assert not (roots & SPARK and roots & TORCH), f"gur_spark.{name} brings in both {sorted(roots & (SPARK | TORCH))}"


def test_the_modules_that_are_named_here_exist() -> None:
    assert modules().keys() >= NEUTRAL | BOTH


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_the_seam_brings_in_neither_spark_nor_torch(name: str) -> None:
    direct = {target.split(".")[0] for target in imported(modules()[name])}
    assert not direct & SPARK
    assert name == "batches.aggregates" or not direct & TORCH


def test_the_package_defines_no_helper_drawer() -> None:
    assert not {"utils", "helpers", "common", "misc"} & {part for name in modules() for part in name.split(".")}
