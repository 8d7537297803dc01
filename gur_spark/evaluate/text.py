"""A report as text: advice, a matrix of tasks and baselines, and a table per task."""

from collections.abc import Iterator, Sequence

from gur_spark.evaluate.figures import Difference, TaskResult, Verdict
from gur_spark.evaluate.report import Report, cell

SHORT: dict[Verdict, str] = {"no clear difference": "unclear"}


def to_text(report: Report) -> str:
    """Write a report for people; each task has a row per representation and a column per model and metric."""
    lines = [
        f"{report.pipeline}: embeddings of {report.when} by {report.model_version}",
        *map(str, report.advice),
        "",
        *_matrix(report),
        "",
        *_head(report),
    ]
    for task in report.tasks:
        lines += ["", *_table(report, task), "", *_compared(report, task), *_by_segment(report, task)]
        lines += _by_label_share(report, task)
    return "\n".join(lines) + "\n"


def _head(report: Report) -> Iterator[str]:
    splits = f"means of {report.seeds} splits, " if report.seeds > 1 else ""
    if len(report.dates) > 1:
        splits = f"means over the dates{f' and {report.seeds} splits of each' if report.seeds > 1 else ''}, "
    yield f"{report.users:,} users, dimension {report.dimension}; {splits}95 % bootstrap intervals over test users"
    if report.widths:
        yield "numbers per user: " + ", ".join(f"{name} {width:,}" for name, width in report.widths.items())
    yield from (f"note: {note}" for note in report.notes)
    yield from (f"left out: {name}" for name in report.left_out)
    yield from (f"space: {space}" for space in report.spaces or ())
    yield from (f"gates: {decision}" for decision in report.decisions or ())


def _matrix(report: Report) -> Iterator[str]:
    """Write the embedding's difference from each baseline, a row per task and model."""
    baselines, rows = report.matrix()
    smallest = report.smallest_difference
    yield f"embedding less each baseline; below {smallest:g} nothing is a win or a loss, a positive number favours it"
    first = max([0, *(len(f"{task}, {model}") for task, model in rows)])
    yield " ".join([" " * first, *(name.ljust(15) for name in baselines)]).rstrip()
    for (task, model), found in rows.items():
        cells = [_cell(report, found.get(name)).ljust(15) for name in baselines]
        yield " ".join([f"{task}, {model}".ljust(first), *cells]).rstrip()


def _cell(report: Report, d: Difference | None) -> str:
    return "" if d is None else f"{d.value:+.3f} {SHORT.get(report.verdict(d), report.verdict(d))}"


def _table(report: Report, task: TaskResult) -> Iterator[str]:
    yield f"{task.name} ({told_classes(task)}): {task.train_users:,} train users, {task.test_users:,} test users"
    if task.splits:
        yield f"each split: {told_splits(task)}"
    columns, rows = report.rows(task.name)
    first, width = max(map(len, rows)), 20
    for part in (0, 1):
        yield " ".join([" " * first, *(column[part].ljust(width) for column in columns)]).rstrip()
    for name, scores in rows.items():
        yield " ".join([name.ljust(first), *(cell(score).ljust(width) for score in scores)]).rstrip()


def told_classes(task: TaskResult) -> str:
    """Tell the share of each class, and the positive class."""
    shares = ", ".join(f"{name} {share:.1%}" for name, share in task.classes.items())
    return shares + (f"; positive: {task.positive}" if task.positive else "")


def told_splits(task: TaskResult) -> str:
    """Tell the users and positives of the splits; where splits differ, the fewest and the most."""
    sides = []
    for side in ("train", "test"):
        users = _span([getattr(split, f"{side}_users") for split in task.splits])
        positives = [getattr(split, f"{side}_positives") for split in task.splits]
        known = [number for number in positives if number is not None]
        sides.append(f"{users} {side} users" + (f" ({_span(known)} {task.positive or 'something'})" if known else ""))
    return ", ".join(sides)


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _compared(report: Report, task: TaskResult) -> Iterator[str]:
    for d in report.compared_with(task.name):
        yield f"{d.representation} - {d.against}, {d.model}, {d.metric}: {d} {report.verdict(d)}"


def _by_segment(report: Report, task: TaskResult) -> Iterator[str]:
    for segment, users in task.segments.items():
        found = [d for d in report.compared_with(task.name, segment) if d.representation == "embedding"]
        told = "; ".join(f"{d.against} {d.value:+.3f} {report.verdict(d)} ({d.model})" for d in found)
        yield f"{segment}, {users:,} test users: " + (told or "not measured: all have the same answer")


def _by_label_share(report: Report, task: TaskResult) -> Iterator[str]:
    """Write a table of the first metric: a row per representation and model, a column per share of the labels."""
    shares, rows = report.label_table(task.name)
    if not rows:
        return
    yield ""
    title = f"{report.of(task.name)[0].metric} with fewer labels"
    first = max(map(len, (title, *rows)))
    for name, cells in ((title, [f"{100 * share:.3g} %" for share in shares]), *rows.items()):
        yield " ".join([name.ljust(first), *(text.ljust(20) for text in cells)]).rstrip()
