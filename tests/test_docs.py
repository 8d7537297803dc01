"""The pages lead to one another; commands, options, keys, tables and imports that they name exist."""

import ast
import re
import shlex
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel

from gur_spark import schema
from gur_spark.config.file import load_config
from gur_spark.models.catalogue import all_kinds
from gur_spark.models.kind import Kind
from gur_spark.outputs.catalogue import OUTPUTS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks/README.md", *(ROOT / "docs").glob("*.md")]
)


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def blocks(language: str) -> list[Any]:
    """The code blocks of a language on all pages, as parameters named by page and position."""
    return [
        pytest.param(block, id=f"{name(page)}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL))
    ]


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
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


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_sentence_or_heading_begins_in_the_middle(page: Path) -> None:
    """A sentence begins with its subject, not with a clause that stands for one."""
    odd = re.findall(r"(?:^[#\-*\s]*|[.:;] |\| )(?:Of|Whose|Who|What|Those|Which)\b.{0,60}", without_code(page), re.M)
    assert odd == []


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_yaml_block_is_a_valid_part_of_a_pipeline(block: str, tmp_path: Path) -> None:
    """A block without a log of its own changes the README's file."""
    shop = next(param.values[0] for param in blocks("yaml") if param.id == "README.md-0")
    (tmp_path / "shop.yaml").write_text(shop)
    part = "" if re.search(r"^(extends|source):", block, re.MULTILINE) else "extends: shop.yaml\n"
    (tmp_path / "part.yaml").write_text(part + block)
    load_config(tmp_path / "part.yaml")


@pytest.mark.parametrize("block", blocks("python"))
def test_every_import_of_a_python_block_is_there(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        # tests/kinds/test_page.py imports the kind that a page builds.
        if node.module.startswith("gur_spark") and not node.module.startswith("gur_spark.models.mine"):
            module = import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def options(job: str) -> set[str]:
    """The options of a job beside those of all jobs."""
    parser = ArgumentParser(add_help=False)
    add = getattr(import_module(f"jobs.{job}"), "options", None)
    if add:
        add(parser)
    return {option for action in parser._actions for option in action.option_strings}


def test_the_page_of_jobs_names_every_job_and_only_options_that_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", (ROOT / "docs/jobs.md").read_text(), re.MULTILINE)
    assert {job for job, _ in rows} == {path.stem for path in (ROOT / "jobs").glob("[a-z]*.py")}
    for job, said in rows:
        named = set(re.findall(r"--[a-z-]+", said))
        assert named <= options(job) | {"--route"} if job == "sequences" else named <= options(job), job


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_of_jobs_have_only_options_that_there_are(page: Path) -> None:
    shared = {"--config", "--print-config"}
    for job, rest in re.findall(r"(?:jobs/|^)([a-z_]+)(?:\.py)? +(--[^#\n`]*)", page.read_text(), re.MULTILINE):
        if (ROOT / "jobs" / f"{job}.py").exists():
            named = {word for word in shlex.split(rest) if word.startswith("--")}
            assert named <= options(job) | shared, f"{job} {rest}"


def columns_told(table: str) -> set[str]:
    """Columns of a table on the page of tables."""
    [rows] = re.findall(rf"### `{table}`\n.*?\n\|---\|---\|\n(.*?)\n\n", page_of_tables(), re.DOTALL)
    cells = [row.split(" | ")[0] for row in rows.splitlines()]
    return {column for cell in cells for column in re.findall(r"`(\w+)`", cell)}


def page_of_tables() -> str:
    return (ROOT / "docs/tables.md").read_text() + "\n\n"


@pytest.mark.parametrize("table", [*schema.FIXED_SCHEMAS, *OUTPUTS, "events", "items", "predictions"])
def test_every_column_of_every_table_is_told(table: str) -> None:
    ddl = {
        **schema.FIXED_SCHEMAS,
        **{output.name: output.schema("long") for output in OUTPUTS.values()},
        "events": schema.events_schema("long", [], [], several_logs=True),
        "items": schema.items_schema([], []),
        "predictions": schema.predictions_schema("long"),
    }[table]
    while "<" in ddl:
        ddl = re.sub(r"<[^<>]*>", "", ddl)
    assert columns_told(table) == set(schema.column_names(ddl))


def test_the_readme_names_only_columns_that_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) >= 9
    for table, said in rows:
        assert set(re.findall(r"`(\w+)`", said)) <= columns_told(table), table


def keys(section: type[BaseModel]) -> set[str]:
    """The keys of a section, with those of the sections in it as ``future.horizon_days``."""
    found: set[str] = set()
    for name, field in section.model_fields.items():
        inner = field.annotation
        below = keys(inner) if isinstance(inner, type) and issubclass(inner, BaseModel) else set()
        found |= {f"{name}.{key}" for key in below} or {name}
    return found


def test_the_page_of_kinds_names_what_each_kind_reads_writes_and_can() -> None:
    page = (ROOT / "docs/kinds.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    told = {kind: (reads, writes.split(", "), set(can.split(", "))) for kind, reads, writes, can in rows}
    assert told == {k.name: (k.reads, list(k.writes), {str(c) for c in k.can}) for k in all_kinds()}


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
