import html.parser
import re
import sys

import numpy as np
import pytest

from irstd.benchmarks import plots
from irstd.benchmarks.conditions import Watch
from irstd.benchmarks.footage import Footage
from irstd.benchmarks.latency import LatencyRun, Samples
from irstd.benchmarks.paced import PacedRun
from irstd.benchmarks.page import comparison_page, latency_page, paced_page
from irstd.benchmarks.report import latency_fields, paced_fields
from irstd.benchmarks.validity import WarmUp, Window
from irstd.errors import MissingDependency

pytest.importorskip("matplotlib")

WARM = WarmUp((Window(100, 1.0, 100.0, 4.0, 5.0),) * 3, settled=True)
NASTY = "<script>alert('x')</script> & \"$\\frac{1}{2}$\""
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Checker(html.parser.HTMLParser):
    """Collects tags, ids and references of a page, and checks that tags are closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.ids, self.links = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._note(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._note(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def _note(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href", "src"):
                self.links.append(value)
            for target in re.findall(r"url\(([^)]*)\)", value or ""):
                self.links.append(target)


def latency_times(n=900, outlier=0.0):
    times = np.random.default_rng(0).gamma(40, 0.1, n)
    times[n // 2] += outlier
    return times


def footage(text="200 simulated frames"):
    return Footage([np.zeros((2, 2), np.uint8)], text, "ab" * 32)


def make_latency(example, outlier=0.0, **changes):
    times = latency_times(outlier=outlier)
    started = np.concatenate([[0], np.cumsum(times)[:-1]]) / 1e3
    parts = (0.05 * times, 0.9 * times, 0.05 * times, np.ones(len(times), int))
    run = LatencyRun(40.0, WARM, Samples(started, times, *parts, float(times.sum() / 1e3)))
    report = example() | {"input_shape": [1, 1, 64, 64], "started_at": "2026-01-01T00:00:00+00:00"}
    return report | latency_fields(run, Watch().finish(), footage()) | changes, run


def make_paced(example):
    status = np.zeros(300, np.int8)
    status[50:55], status[60] = 2, 1
    captured = np.arange(300) / 30
    ready = captured + latency_times(300) / 1e3
    ready[status == 2] = np.nan
    stage = np.where(status == 2, np.nan, 1.0)
    run = PacedRun(40.0, WARM, 30.0, 33.3, status, captured, ready, stage, stage, stage)
    report = example("paced") | {"input_shape": [1, 1, 64, 64], "started_at": "now"}
    return report | {"policy": "wait"} | paced_fields(run, Watch().finish(), footage()), run


@pytest.fixture(scope="module")
def pages(example):
    return {
        "latency": latency_page(*make_latency(example)),
        "outlier": latency_page(*make_latency(example, outlier=400)),
        "paced": paced_page(*make_paced(example)),
        "compared": comparison_page(["a", "b"], [example(), example()], ["beware"]),
        "accuracy": comparison_page(["a", "b"], [example("accuracy")] * 2, []),
        "one": comparison_page(["a"], [example("paced")], []),
    }


def test_pages_are_whole_and_stand_alone(pages):
    for page in pages.values():
        checked = Checker(page)
        assert not {"script", "link", "img", "iframe", "object", "image"} & set(checked.tags)
        assert "svg" in checked.tags
        assert len(checked.ids) == len(set(checked.ids))
        assert checked.links
        for link in checked.links:
            assert link.startswith("#")
            assert link[1:] in checked.ids
        assert "@import" not in page
        assert set(re.findall(r'https?://[^"\s<]*', page)) <= {
            "http://www.w3.org/1999/xlink",
            "http://www.w3.org/2000/svg",
        }


def test_every_colour_follows_the_theme(pages):
    for page in pages.values():
        style, body = page.split("</style>", 1)
        assert "#0a0b" not in body
        assert re.findall(r"(?:fill|stroke|color): (#\w+|black|white)", body) == []
        assert "prefers-color-scheme: dark" in style
        for name in re.findall(r"var\(--([\w-]+)\)", page):
            assert style.count(f"--{name}:") == 2, name  # once light, once dark


def test_what_the_pages_show(pages, example):
    report, _ = make_latency(example)
    page = pages["latency"]
    for percentile in ("p50", "p90", "p99", "max"):
        assert f"{report['latency_ms'][percentile]:.4g}" in page
    for text in ("stable", "not publishable", "p99 indicative", "development numbers"):
        assert text in page
    assert "warm-up 3" in page
    assert "measured 3" in page
    assert "not stable" not in page
    assert "dropped" in pages["paced"]
    assert "294 of 300" in pages["paced"]
    assert "beware" in pages["compared"]


def test_an_unstable_run_says_so(example):
    report, run = make_latency(example)
    report["validity"] = {
        "ok": False, "publishable": False, "reasons": ["drifted"], "warnings": []
    }  # fmt: skip
    page = latency_page(report, run)
    assert "not stable" in page
    assert "drifted" in page


@pytest.mark.parametrize("field", ["network", "engine", "command", "precision"])
def test_text_of_a_report_is_shown_and_never_run(example, field):
    report, run = make_latency(example, **{field: NASTY})
    page = latency_page(report, run)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    Checker(page)


def test_nasty_names_in_plots(example):
    page = comparison_page([NASTY, "x" * 500, "$unclosed"], [example()] * 3, [NASTY])
    assert "<script" not in page
    assert "frac{1}{2}" in page
    Checker(page)


@pytest.mark.parametrize(
    "times",
    [[5.0], [5.0] * 100, [5.0, 5.0001], [0.001, 0.002], [1.0] * 50 + [1000.0], [1e-4, 30.0, 9.9]],
)
def test_histograms_of_odd_series(times):
    times = np.array(times)
    drawn = plots.draw_histogram(times, {"p50": float(np.median(times)), "max": times.max()})
    assert drawn.startswith("<svg")
    assert plots.draw_series(np.arange(len(times)) * 1.0, times).startswith("<svg")


def test_a_long_series_is_drawn_as_an_envelope_that_keeps_outliers():
    times = np.full(200_000, 4.0)
    times[123_456] = 400
    drawn = plots.draw_series(np.arange(200_000) / 250, times)
    assert len(drawn) < 120_000
    envelope = max(re.findall(r' d="([^"]*)"', drawn), key=len)
    heights = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", envelope)]
    assert max(heights) - min(heights) > 100  # points of the page: up to the outlier
    assert "lowest, highest" in drawn


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"pip install 'irstd-sdk\[viz\]'") as caught:
        plots.require_matplotlib()
    assert caught.value.exit_code == 3
