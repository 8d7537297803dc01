"""Imports between modules of the package, checked as they are written (``if TYPE_CHECKING`` left out).

Two rules: packages stand in one order and import only earlier ones; and the Spark side never imports torch, the torch
side never pyspark.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gur_spark"

ORDER = (
    # Modules that know neither events nor models.
    *("errors", "extras", "storage", "arrays", "splits", "schema", "pages", "engines"),
    *("statistics", "features"),
    # A kind owns its section of the configuration, so the contract of kinds comes before the configuration.
    *("config.section", "config.training", "models.kind", "models.catalogue", "config"),
    # The data, from raw events to what consumers read.
    *("session", "tables", "events", "snapshots", "batches", "models", "registry", "outputs", "spaces", "training"),
    *("evaluate", "monitoring", "serving", "consumers"),
    # Entry points: the command line, pytorch-lifestream, a machine's installation, the demo's data.
    *("cli", "steps", "lifestream", "install", "synthetic"),
)
"""Each module belongs to the longest name here that it begins with, and imports only from its own or earlier ones."""

UPWARD: set[tuple[str, str]] = set()
"""Imports against the order that are still to be removed. The list may only shrink."""

SPARK = {"pyspark", "delta"}
TORCH = {"torch", "lightning", "safetensors", "ptls"}

NEUTRAL = {
    *("errors", "extras", "storage", "arrays", "splits", "schema", "pages", "engines"),
    *("statistics", "features", "config", "models.kind", "models.catalogue", "snapshots.files", "batches.columns"),
    *("registry.card", "registry.names", "spaces.mapping", "models.gur.cooccurrence"),
    *("evaluate.advice", "evaluate.choice", "evaluate.figures", "evaluate.page", "evaluate.pooling", "evaluate.report"),
    *("evaluate.small_models", "evaluate.text"),
    *("monitoring.features", "monitoring.page", "consumers.nearest", "synthetic"),
}
"""Modules, and packages with all of their modules, that bring in neither Spark nor torch, not even through others."""
NOT_NEUTRAL = {"features.spark", "statistics.samples"}
"""Exceptions inside those packages."""

BOTH = {
    *("models.gur.__init__", "training.run", "evaluate.baselines", "evaluate.run"),
    *("serving.workers", "serving.scoring", "serving.live"),
}
"""Modules that may bring in both: kinds, which import each on use, and jobs that go from tables to a model and back."""


@cache
def modules() -> dict[str, Path]:
    """Module, without ``gur_spark.`` -> its file; a package's own file is its ``__init__``."""
    return {str(f.relative_to(PACKAGE).with_suffix("")).replace("/", "."): f for f in sorted(PACKAGE.rglob("*.py"))}


@cache
def imported(file: Path) -> set[str]:
    """Every module that a file imports at run time."""
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


@cache
def inner_imports(name: str) -> set[str]:
    """Modules of this package that a module imports; of an imported package, its own file."""
    targets = {target.removeprefix("gur_spark.") for target in imported(modules()[name]) if "." in target}
    return {t if t in modules() else f"{t}.__init__" for t in targets if {t, f"{t}.__init__"} & modules().keys()}


def within(name: str, units: set[str] | tuple[str, ...]) -> str | None:
    """The longest of the units that the module is or lies in."""
    parts = name.split(".")
    candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((unit for unit in candidates if unit in units), None)


def upward_imports() -> set[tuple[str, str]]:
    def place(name: str) -> int:
        return ORDER.index(within(name, ORDER) or "")

    named = [name for name in modules() if name != "__init__"]
    return {(name, target) for name in named for target in inner_imports(name) if place(target) > place(name)}


def reached(name: str, seen: set[str]) -> set[str]:
    """Third-party roots that a module brings in, also through modules of this package."""
    seen.add(name)
    roots = {target.split(".")[0] for target in imported(modules()[name])} - {"gur_spark"}
    for target in inner_imports(name) - seen:
        roots |= reached(target, seen)
    return roots


def test_every_module_has_a_place_in_the_order() -> None:
    assert not [name for name in modules() if name != "__init__" and within(name, ORDER) is None]


def test_a_package_imports_only_earlier_ones() -> None:
    unlisted = sorted(upward_imports() - UPWARD)
    assert not unlisted, "imports against the order:\n" + "\n".join(
        f"  {name} -> {target}" for name, target in unlisted
    )


def test_a_listed_upward_import_still_exists() -> None:
    gone = sorted(UPWARD - upward_imports())
    assert not gone, f"these no longer exist; remove them from UPWARD: {gone}"


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Modules whose imports are all gone are removed, again and again; those that stay are on a circle or above one."""
    left = {name: inner_imports(name) - {name} for name in modules()}
    while removable := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in removable:
            del left[name]
    assert not left, f"circles among {sorted(left)}"


@pytest.mark.parametrize("name", sorted(modules().keys() - BOTH))
def test_a_module_stays_on_its_side(name: str) -> None:
    roots = reached(name, set())
    assert not (roots & SPARK and roots & TORCH), f"gur_spark.{name} brings in both {sorted(roots & (SPARK | TORCH))}"


def test_the_modules_that_are_named_here_exist() -> None:
    units = {unit for name in modules() for unit in [name, *_packages(name)]}
    assert units >= NEUTRAL | NOT_NEUTRAL | BOTH


def _packages(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def seam() -> list[str]:
    return [name for name in modules() if within(name, NEUTRAL) and not within(name, NOT_NEUTRAL)]


@pytest.mark.parametrize("name", seam())
def test_the_seam_brings_in_neither_spark_nor_torch(name: str) -> None:
    assert not reached(name, set()) & (SPARK | TORCH)


def test_the_package_defines_no_helper_drawer() -> None:
    assert not {"utils", "helpers", "common", "misc"} & {part for name in modules() for part in name.split(".")}
