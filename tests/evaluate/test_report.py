"""A report is a table for people, JSON for programs, and a picture."""

import io
import json
from dataclasses import asdict, replace

import matplotlib.image
import numpy as np
import pytest

from gur_spark.evaluate.advice import Advice
from gur_spark.evaluate.figures import Difference, Score, SplitUsers, TaskResult
from gur_spark.evaluate.page import to_html
from gur_spark.evaluate.plots import draw
from gur_spark.evaluate.report import FORMAT, Decision, Report, SharedSpace
from gur_spark.evaluate.text import to_text

REPORT = Report(
    pipeline="shop",
    model_version="gur-1",
    dates=["2024-06-01"],
    users=1200,
    dimension=8,
    tasks=[
        TaskResult(
            "churn",
            {"active": 0.75, "churned": 0.25},
            840,
            360,
            {"cold": 120, "heavy": 240},
            "churned",
            [SplitUsers("2024-06-01", 840, 360, 210, 90), SplitUsers("2024-06-01", 850, 350, 212, 88)],
        )
    ],
    advice=[
        Advice(
            "churn",
            "AUC",
            0.005,
            [
                Score("churn", "LightGBM", "AUC", "embedding", 0.85, 0.83, 0.87),
                Score("churn", "LightGBM", "AUC", "raw windows", 0.9, 0.88, 0.92),
            ],
            [Difference("churn", "best", "AUC", "embedding", "raw windows", -0.05, -0.08, -0.01)],
        )
    ],
    widths={"PCA": 8, "embedding": 8},
    scores=[
        Score("churn", model, metric, name, value, value - 0.02, value + 0.03)
        for model, better in (("logistic regression", 0), ("LightGBM", 0.1))
        for name, value in (("PCA", 0.7 + better), ("embedding", 0.75 + better))
        for metric, value in (("AUC", value), ("average precision", value - 0.3))
    ]
    + [
        Score("churn", "LightGBM", "AUC", name, value, value - 0.05, value + 0.05, label_share=0.1)
        for name, value in (("PCA", 0.66), ("embedding", 0.77))
    ],
    differences=[
        Difference("churn", "LightGBM", "AUC", "embedding", "PCA", 0.05, 0.01, 0.08),
        Difference("churn", "LightGBM", "AUC", "embedding", "raw windows", -0.05, -0.08, -0.01),
        Difference("churn", "LightGBM", "average precision", "embedding", "PCA", 0.0, -0.01, 0.01),
        Difference("churn", "logistic regression", "AUC", "embedding", "PCA", 0.004, 0.001, 0.005),
        Difference("churn", "LightGBM", "AUC", "embedding", "PCA", 0.02, 0.01, 0.03, "heavy"),
    ],
    notes=["a sample of 1,200 users"],
    compared={"PCA": "components", "embedding": "<ours>"},
    left_out=["CoLES (no time)"],
    segments="by events",
)


def test_the_table_says_who_was_asked_and_sets_the_representations_side_by_side():
    assert to_text(REPORT) == (
        "shop: embeddings of 2024-06-01 by gur-1\n"
        "churn: use raw windows (AUC 0.900, LightGBM); the embedding reaches 0.850 at best (LightGBM), "
        "0.050 [0.010, 0.080] less\n"
        "\n"
        "embedding less each baseline; below 0.005 nothing is a win or a loss, a positive number favours it\n"
        "                           PCA             raw windows\n"
        "churn, LightGBM            +0.050 win      -0.050 loss\n"
        "churn, logistic regression +0.004 as good\n"
        "\n"
        "1,200 users, dimension 8; 95 % bootstrap intervals over test users\n"
        "numbers per user: PCA 8, embedding 8\n"
        "note: a sample of 1,200 users\n"
        "left out: CoLES (no time)\n"
        "\n"
        "churn (active 75.0%, churned 25.0%; positive: churned): 840 train users, 360 test users\n"
        "each split: 840 to 850 train users (210 to 212 churned), 350 to 360 test users (88 to 90 churned)\n"
        "          logistic regression  logistic regression  LightGBM             LightGBM\n"
        "          AUC                  average precision    AUC                  average precision\n"
        "PCA       0.700 [0.680, 0.730] 0.400 [0.380, 0.430] 0.800 [0.780, 0.830] 0.500 [0.480, 0.530]\n"
        "embedding 0.750 [0.730, 0.780] 0.450 [0.430, 0.480] 0.850 [0.830, 0.880] 0.550 [0.530, 0.580]\n"
        "\n"
        "embedding - PCA, LightGBM, AUC: +0.050 [+0.010, +0.080] win\n"
        "embedding - raw windows, LightGBM, AUC: -0.050 [-0.080, -0.010] loss\n"
        "embedding - PCA, LightGBM, average precision: +0.000 [-0.010, +0.010] no clear difference\n"
        "embedding - PCA, logistic regression, AUC: +0.004 [+0.001, +0.005] as good\n"
        "cold, 120 test users: not measured: all have the same answer\n"
        "heavy, 240 test users: PCA +0.020 win (LightGBM)\n"
        "\n"
        "AUC with fewer labels          10 %                 100 %\n"
        "PCA, logistic regression                            0.700 [0.680, 0.730]\n"
        "embedding, logistic regression                      0.750 [0.730, 0.780]\n"
        "PCA, LightGBM                  0.660 [0.610, 0.710] 0.800 [0.780, 0.830]\n"
        "embedding, LightGBM            0.770 [0.720, 0.820] 0.850 [0.830, 0.880]\n"
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.005, 0.001, 0.009, "win"),
        (-0.005, -0.009, -0.001, "loss"),
        (0.004, 0.001, 0.007, "no clear difference"),
        (0.02, 0.0, 0.04, "no clear difference"),
        (0.003, 0.001, 0.005, "as good"),
        (0.0, -0.005, 0.005, "as good"),
        (0.0, -0.005, 0.006, "no clear difference"),
        (0.0, -0.006, 0.005, "no clear difference"),
    ],
)
def test_a_difference_is_a_win_if_it_is_clear_and_large_enough_and_as_good_if_it_is_clearly_small(
    value, low, high, verdict
):
    assert Difference("churn", "LightGBM", "AUC", "embedding", "PCA", value, low, high).verdict(0.005) == verdict
    larger = Difference("churn", "LightGBM", "AUC", "embedding", "PCA", 4 * value, 4 * low, 4 * high)
    assert larger.verdict(0.02) == verdict


def test_json_holds_the_whole_report():
    found = json.loads(REPORT.to_json())
    assert found.pop("format") == FORMAT
    verdicts = [(v["against"], v["verdict"]) for v in found.pop("verdicts")]
    assert verdicts == [("PCA", "win"), ("raw windows", "loss"), ("PCA", "as good")]
    assert [(a.pop("use"), a.pop("says")) for a in found["advice"]] == [("raw windows", str(REPORT.advice[0]))]
    assert found == json.loads(json.dumps(asdict(REPORT)))
    assert json.loads(REPORT.to_json())["scores"][0]["representation"] == "PCA"


def test_the_picture_is_a_png_with_both_models_in_it():
    pixels = matplotlib.image.imread(io.BytesIO(draw(REPORT)), format="png")
    height, width, _ = pixels.shape
    assert height > 350
    assert width > 600
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.rint(255 * pixels[:, :, :3]) == colour).all(axis=2).any()


def test_the_page_shows_verdicts_left_out_baselines_and_segments_and_needs_no_network():
    page = to_html(REPORT)
    assert f"<p>{REPORT.advice[0]}.</p>" in page
    assert "it is at least 0.005" in page
    assert "<td>2024-06-01</td><td>840</td><td>210</td><td>360</td><td>90</td>" in page
    assert "<td>PCA, LightGBM</td><td>0.660 [0.610, 0.710]</td><td>0.800 [0.780, 0.830]</td>" in page
    for told in (
        '<span class="s win">',
        '<span class="s ok">as good',
        '<span class="s loss">',
        "CoLES (no time)",
        "by events",
        "&lt;ours&gt;",
    ):
        assert told in page
    assert "cold, 120 users" in page
    assert "not measured" in page
    assert "By seed" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/svg+xml;base64,") == 3


REFUSED = [
    {"gate": "norm ratio", "value": 1.3, "bound": "at most 1.2", "passed": False},
    {"gate": "share of neighbours kept", "value": 0.8, "bound": "at least 0.1", "passed": True},
]
LIVED = replace(
    REPORT,
    spaces=[
        SharedSpace("gur-0", "aligned", 0.25, 1200, "churn", 0.016),
        SharedSpace("gur-<old>", "mapped", 0.14, 900),
    ],
    decisions=[Decision("gur-1 at 2024-06-01", False, REFUSED), Decision("gur-1 at 2024-06-08", True, REFUSED[1:])],
)


def test_a_report_tells_whose_space_it_is_what_that_costs_and_what_the_gates_found():
    told = [line for line in to_text(LIVED).splitlines() if line.startswith(("space: ", "gates: "))]
    assert told == [
        "space: aligned to gur-0, residual 0.250 on 1,200 users; what its consumers lose: +1.6% of AUC in churn",
        "space: mapped to gur-<old>, residual 0.140 on 900 users; what its consumers lose: not measured: no task of "
        "classes, too few users, or it was not scored at the newest date evaluated",
        "gates: gur-1 at 2024-06-01: refused, 1 of 2 gates passed; not norm ratio 1.300, expected at most 1.2",
        "gates: gur-1 at 2024-06-08: published, 1 of 1 gates passed",
    ]
    page = to_html(LIVED)
    for said in ("gur-&lt;old&gt;", "Gates, gur-1 at 2024-06-01: refused", '<span class="s loss">not passed</span>'):
        assert said in page
    assert "no gate was asked of it" in to_html(replace(REPORT, spaces=[], decisions=[]))
    assert "The version" not in to_html(REPORT)
    found = json.loads(LIVED.to_json())
    assert (found["spaces"][0]["consumer_loss"], found["decisions"][0]["gates"]) == (0.016, REFUSED)


def test_several_dates_are_named_and_shown_one_by_one():
    both = Difference("churn", "LightGBM", "AUC", "embedding", "PCA", 0.05, 0.01, 0.08, "all", (0.02, 0.04, 0.06, 0.08))
    several = replace(REPORT, dates=["2024-06-01", "2024-07-01"], seeds=2, differences=[both])
    lines = to_text(several).splitlines()
    assert lines[0] == "shop: embeddings of 2 dates, 2024-06-01 to 2024-07-01 by gur-1"
    assert any("means over the dates and 2 splits of each, 95 % bootstrap intervals" in line for line in lines)
    page = to_html(several)
    assert several.by_date(both) == pytest.approx([0.03, 0.07])
    assert several.by_split(both) == pytest.approx([0.04, 0.06])
    for said in ("By date", "<th>2024-07-01</th>", "+0.030", "+0.070", "By seed", "2 dates, with 2 split(s)"):
        assert said in page


def test_json_is_strict_where_a_split_of_a_segment_has_no_figure():
    undefined = Score("churn", "LightGBM", "AUC", "PCA", 0.7, 0.6, 0.8, "cold", (0.7, float("nan")))
    found = json.loads(replace(REPORT, scores=[undefined]).to_json(), parse_constant=lambda name: pytest.fail(name))
    assert found["scores"][0]["by_seed"] == [0.7, None]
