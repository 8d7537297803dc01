"""A report as one HTML file that needs no network: advice, verdicts, every figure, label shares, segments and seeds."""

from collections.abc import Callable, Iterator, Sequence
from html import escape

from gur_spark.evaluate.figures import Difference, TaskResult
from gur_spark.evaluate.plots import draw_label_shares, draw_scores, draw_segments
from gur_spark.evaluate.report import Report, cell
from gur_spark.evaluate.text import told_classes
from gur_spark.pages import document, picture


def to_html(report: Report) -> str:
    """Render a report as a page."""
    title = f"{report.pipeline}, {report.when}: evaluation of embeddings"
    said = (
        f"{report.users:,} users, {report.dimension} numbers each, by {report.model_version}; 95 % bootstrap intervals"
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="said">{escape(said)} over test users, means over {_means(report)}.</p>',
        *(["<h2>What to use</h2>"] if report.advice else []),
        *(f"<p>{escape(str(advice))}.</p>" for advice in report.advice),
        "<h2>Verdicts</h2>",
        f'<p class="said">{escape(_rule(report))}</p>',
        _verdicts(report),
        "<h2>What was compared</h2>",
        _representations(report),
        *(f"<p>left out: {escape(what)}</p>" for what in report.left_out),
        *(f'<p class="said">{escape(note)}</p>' for note in report.notes),
        "<h2>Overall</h2>",
        picture(draw_scores(report), "scores of every representation"),
        *(part for task in report.tasks for part in _overall(report, task)),
        *_label_shares(report),
        *_segments(report),
        *_version(report),
        *_dates(report),
        *_seeds(report),
    ]
    return document(title, parts)


def _rule(report: Report) -> str:
    smallest = f"{report.smallest_difference:g}"
    return (
        "The embedding less each baseline: a positive difference favours the embedding. It is a win or a loss where "
        f"its 95 % interval lies on one side of 0 and it is at least {smallest}; it is as good where the whole "
        f"interval lies within {smallest} of 0. One of twenty such intervals misses by chance."
    )


def _verdicts(report: Report) -> str:
    """Render the matrix of tasks and baselines."""
    baselines, rows = report.matrix()
    cells = [
        [escape(task), model, *(_cell(report, found.get(name)) for name in baselines)]
        for (task, model), found in rows.items()
    ]
    return _table(["task", "model", *baselines], cells)


def _cell(report: Report, d: Difference | None) -> str:
    return "" if d is None else f"{escape(str(d))} {_verdict(report, d)}"


def _verdict(report: Report, d: Difference) -> str:
    word = report.verdict(d)
    return _badge({"as good": "ok"}.get(word, word.split()[0]), word)


def _representations(report: Report) -> str:
    rows = [
        [escape(name), f"{report.widths[name]:,}" if name in report.widths else "", escape(what)]
        for name, what in report.compared.items()
    ]
    return _table(["representation", "numbers per user", "description"], rows)


def _overall(report: Report, task: TaskResult) -> Iterator[str]:
    users = f"{task.train_users:,} train users, {task.test_users:,} test users"
    yield f'<h3>{escape(task.name)}</h3><p class="said">{escape(told_classes(task))}; {users}</p>'
    columns, rows = report.rows(task.name)
    cells = [[escape(name), *(cell(score) for score in scores)] for name, scores in rows.items()]
    yield _table(["", *(f"{model}, {metric}" for model, metric in columns)], cells)
    found = [
        [
            f"{escape(d.representation)} less {escape(d.against)}",
            d.model,
            d.metric,
            escape(str(d)),
            _verdict(report, d),
        ]
        for d in report.compared_with(task.name)
    ]
    table = _table(["", "model", "metric", "difference", ""], found)
    yield f"<details><summary>all differences</summary>{table}</details>"
    if task.splits:
        yield f"<details><summary>users of each split</summary>{_splits(task)}</details>"


def _splits(task: TaskResult) -> str:
    counts = [
        [one.as_of, *(_count(n) for n in (one.train_users, one.train_positives, one.test_users, one.test_positives))]
        for one in task.splits
    ]
    positive = task.positive or "something"
    return _table(["date", "train users", f"of them {positive}", "test users", f"of them {positive}"], counts)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _label_shares(report: Report) -> Iterator[str]:
    tasks = [task for task in report.tasks if len(report.label_shares(task.name)) > 1]
    if not tasks:
        return
    yield "<h2>With fewer labels</h2>"
    yield (
        '<p class="said">Models that are fitted on a share of the train users, of each class alike, and tested on the '
        "same test users.</p>"
    )
    yield picture(draw_label_shares(report), "scores by the share of the labels")
    for task in tasks:
        shares, found = report.label_table(task.name)
        rows = [[escape(name), *cells] for name, cells in found.items()]
        heads = [f"{100 * share:.3g} %" for share in shares]
        yield f"<h3>{escape(task.name)}, {report.of(task.name)[0].metric}</h3>" + _table(["", *heads], rows)


def _segments(report: Report) -> Iterator[str]:
    if not report.segments:
        return
    yield "<h2>By segment</h2>"
    yield f'<p class="said">{escape(report.segments)}. Probes are fitted on all users.</p>'
    if any(d.segment != "all" for d in report.differences):
        yield picture(draw_segments(report), "differences by segment")
    for task in report.tasks:
        columns = list(task.segments)
        found = {name: report.rows(task.name, name)[1] for name in columns}
        heads = [f"{name}, {users:,} users" for name, users in task.segments.items()]
        models = list(dict.fromkeys(score.model for score in report.of(task.name)))
        for number, model in enumerate(models):
            rows = [
                [escape(name), *(_at(found[segment].get(name), number) for segment in columns)]
                for name in report.compared
            ]
            yield f"<h3>{escape(task.name)}, {model}, {report.of(task.name)[0].metric}</h3>" + _table(
                ["", *heads], rows
            )


def _at(scores: Sequence[object] | None, number: int) -> str:
    return cell(scores[number]) if scores else "not measured"  # type: ignore[arg-type]


def _means(report: Report) -> str:
    dates = f"{len(report.dates)} dates, with " if len(report.dates) > 1 else ""
    return f"{dates}{report.seeds} split(s)"


def _version(report: Report) -> Iterator[str]:
    if report.spaces is None or report.decisions is None:
        return
    yield "<h2>The version</h2>"
    told = [str(space) for space in report.spaces] or [
        "in a space of its own: consumers of older versions cannot read it"
    ]
    told += [] if report.decisions else ["no gate was asked of it"]
    yield "".join(f'<p class="said">{escape(line)}</p>' for line in told)
    for decision in report.decisions:
        yield f"<h3>Gates, {escape(decision.of)}: {'published' if decision.published else 'refused'}</h3>"
        rows = [
            [
                escape(g["gate"]),
                f"{g['value']:.3f}",
                escape(g["bound"]),
                _badge("win" if g["passed"] else "loss", "passed" if g["passed"] else "not passed"),
            ]
            for g in decision.gates
        ]
        yield _table(["gate", "value", "expected", ""], rows)


def _dates(report: Report) -> Iterator[str]:
    if len(report.dates) > 1:
        yield "<h2>By date</h2>"
        yield '<p class="said">The difference at each date, a mean over its splits.</p>'
        yield _parts(report, report.dates, report.by_date)


def _seeds(report: Report) -> Iterator[str]:
    if report.seeds > 1:
        yield "<h2>By seed</h2>"
        yield '<p class="said">The difference in each split: how much of a figure is the luck of one.</p>'
        yield _parts(report, [f"split {n}" for n in range(1, report.seeds + 1)], report.by_split)


def _parts(report: Report, names: Sequence[str], of: Callable[[Difference], list[float]]) -> str:
    rows = [
        [escape(task.name), escape(d.against), d.model, d.metric, *(f"{value:+.3f}" for value in of(d))]
        for task in report.tasks
        for d in report.headline(task.name)
    ]
    return _table(["task", "against", "model", "metric", *names], rows)


def _badge(kind: str, said: str) -> str:
    return f'<span class="s {kind}">{said}</span>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a table; its cells are HTML already."""
    head = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{value}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
