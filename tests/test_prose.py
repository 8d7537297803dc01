"""Docstrings and comments are plain sentences that begin with their subject or verb."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path for folder in ("gur_spark", "jobs", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
)

BANNED = ("Of", "That", "Those", "What", "Which", "Who", "Whom", "Whose")
"""Words that stand for a subject that the reader does not know yet."""

FIRST_SENTENCE = re.compile(r"(?s)(?:[A-Z0-9`].*?[.:])(?:\s|$)")
"""A capital letter, a number or a name in backticks, up to a full stop or a colon."""

IN_THE_MIDDLE = re.compile(rf"(?:\A|[.:?]\s+)(?:{'|'.join(BANNED)})\b.{{0,60}}")


def docstrings(module: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of attributes and constants included."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def comments(module: Path) -> Iterator[tuple[int, str]]:
    """First line and text of every block of comments."""
    block: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(module.read_text()).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1 and block:
            yield last, " ".join(block)
            block = []
        last = token.start[0]
        block.append(token.string.lstrip("# "))
    if block:
        yield last, " ".join(block)


def name(module: Path) -> str:
    return str(module.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_docstring_begins_with_a_sentence(module: Path) -> None:
    found = [f"{line}: {text[:80]}" for line, text in docstrings(module) if not FIRST_SENTENCE.match(text)]
    assert found == []


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_no_sentence_begins_with_a_word_that_stands_for_its_subject(module: Path) -> None:
    found = [
        f"{line}: {match.group()}"
        for line, text in (*docstrings(module), *comments(module))
        for match in IN_THE_MIDDLE.finditer(text)
    ]
    assert found == []
