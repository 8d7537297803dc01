"""The pages lead to one another, and name commands and keys that there are."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel

from gur_spark.models.catalogue import all_kinds
from gur_spark.models.kind import Kind

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks/README.md", *(ROOT / "docs").glob("*.md")]
)


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As a forge makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_to_a_page_or_a_heading_leads_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", without_code(page)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_benchmark_and_job_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    for benchmark in set(re.findall(r"benchmarks\.([a-z_]+)", text)):
        assert (ROOT / "benchmarks" / f"{benchmark}.py").exists(), benchmark
    for job in set(re.findall(r"jobs/([a-z_]+)\.py", text)):
        assert (ROOT / "jobs" / f"{job}.py").exists(), job


def test_every_page_of_the_docs_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in readme] == []


def keys(section: type[BaseModel]) -> set[str]:
    """The keys of a section, with those of the sections in it as ``future.horizon_days``."""
    found: set[str] = set()
    for name, field in section.model_fields.items():
        inner = field.annotation
        below = keys(inner) if isinstance(inner, type) and issubclass(inner, BaseModel) else set()
        found |= {f"{name}.{key}" for key in below} or {name}
    return found


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
def test_every_setting_of_a_kind_is_documented_with_its_default(kind: Kind) -> None:
    page = (ROOT / "docs/model.md").read_text()
    [table] = re.findall(rf"The keys of `{kind.name}`.*?:\n\n(.*?)\n\n", page, re.DOTALL)
    told: set[str] = set()
    for row in table.splitlines()[2:]:
        names, values, _ = row.strip("| ").split(" | ", 2)
        for key, value in zip(names.split(", "), values.split(", "), strict=True):
            given = f"{key}={value}".replace("`", "")
            assert kind.config(**OmegaConf.to_object(OmegaConf.from_dotlist([given]))) == kind.config(), given
            told.add(key.strip("`"))
    assert told == keys(kind.config) - {"kind"}
