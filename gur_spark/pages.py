"""Parts that all report pages share. A page is one HTML file with its pictures inside, and needs no network."""

import io
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from typing import Any

from gur_spark.extras import report_library

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: .2em; } h2 { font-size: 1.15em; margin: 2em 0 .5em; }
h3 { font-size: 1em; margin: 1.4em 0 .4em; }
p { margin: .3em 0; } .said { color: #5b6875; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th { text-align: left; border-bottom: 2px solid #c9d1d9; } td { border-bottom: 1px solid #e6eaee; }
th, td { padding: .25em .6em .25em 0; vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.s { border-radius: 4px; padding: .05em .5em; color: #fff; font-size: 12px; font-weight: 600; white-space: nowrap; }
.alert, .loss { background: #c2410c; } .warn { background: #b7791f; } .ok, .win { background: #2f7d5b; }
.no { background: #5b6875; }
img { width: 100%; } summary { cursor: pointer; color: #0b5c94; }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page with a title and the HTML of its parts."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def picture(figure: Any, alt: str) -> str:
    """HTML of a matplotlib figure, embedded as SVG. The same figure gives the same bytes.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    content = io.BytesIO()
    with report_library("matplotlib").rc_context({"svg.hashsalt": "gur_spark"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{b64encode(content.getvalue()).decode()}">'
