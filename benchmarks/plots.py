"""Plots as SVG text for pages that open from disk, in the colours of the reader's theme.

matplotlib draws with marker colours, which are then replaced by CSS variables (page.py), so one
picture serves the light and the dark theme. Text stays text.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from irstd.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Marker colours, and the CSS variables that replace them.
INK, MUTED, GRID, MAIN, SOFT, WARM, PRE, POST = (f"#0a0b{index:02x}" for index in range(1, 9))
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    MAIN: "main",
    SOFT: "soft",
    WARM: "warm",
    PRE: "pre",
    POST: "post",
}
STAGES = {
    "pre": ("preprocessing", PRE),
    "infer": ("engine", MAIN),
    "post": ("postprocessing", POST),
}

_BINS = 80
_COLUMNS = 500  # of the time series: more frames than that are drawn as an envelope
_LONG_TAIL = 4  # max / median from which the time axis is logarithmic
_WIDTH_IN = 9.2
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "irstd",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "legend.frameon": False,
}


def require_matplotlib() -> None:
    """Check that plots can be drawn; a measurement does so before it starts.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401 (importing is the check)
    except ImportError as error:
        raise MissingDependency(
            "--html draws with matplotlib, which is not installed; pip install 'irstd-sdk[viz]'"
        ) from error


def draw_histogram(times_ms: NDArray[np.float64], marks: Mapping[str, float]) -> str:
    """Draw how often each latency occurred, on a logarithmic scale so that outliers are seen.

    Args:
        times_ms: (N,) N above 0.
        marks: Named times in ms, drawn as vertical lines; the median is the first.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.add_axes((0.075, 0.16, 0.905, 0.58))  # with room above for names of marks
        low, high = float(times_ms.min()), float(times_ms.max())
        tail = high / max(float(np.median(times_ms)), 1e-9)
        if tail > _LONG_TAIL and low > 0:
            axes.set_xscale("log")
            edges = np.geomspace(low, high * 1.001, _BINS + 1)
            _label_plainly(axes.xaxis, low, high, (1, 2, 5))
        else:
            margin = max((high - low) * 0.02, high * 1e-3)
            edges = np.linspace(max(low - margin, 0), high + margin, _BINS + 1)
        counts, *_ = axes.hist(
            times_ms, list(edges), color=MAIN, linewidth=0, histtype="stepfilled"
        )
        axes.set_yscale("log")
        most = float(np.max(counts))
        axes.set_ylim(0.7, 1.5 * most)
        _label_plainly(axes.yaxis, 1, most, (1,) if most >= 20 else (1, 2, 5))
        axes.set_xlabel("latency, ms")
        axes.set_ylabel("frames")
        axes.grid(axis="y", linewidth=0.6)
        _draw_marks(axes, marks)

    return _render(paint, "histogram", 3.2, layout=None)


def draw_series(
    at_s: NDArray[np.float64],
    times_ms: NDArray[np.float64],
    *,
    deadline_ms: float | None = None,
    dropped_s: NDArray[np.float64] | None = None,
) -> str:
    """Draw the latency over the run: the median, and the lowest to highest around it.

    Args:
        at_s: (N,) ascending, N above 0.
        times_ms: (N,) likewise.
        deadline_ms: Drawn as a horizontal line.
        dropped_s: (D,) when frames were dropped, drawn as ticks at the top.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        parts = np.array_split(np.arange(len(times_ms)), min(_COLUMNS, len(times_ms)))
        centre = np.array([at_s[part].mean() for part in parts])
        groups = [times_ms[part] for part in parts]
        lows, highs = np.array([g.min() for g in groups]), np.array([g.max() for g in groups])
        medians = [float(np.median(group)) for group in groups]
        if len(times_ms) > _COLUMNS:
            axes.fill_between(centre, lows, highs, color=SOFT, linewidth=0, label="lowest, highest")
            axes.plot(centre, medians, color=MAIN, linewidth=1.2, label="median")
        else:
            axes.plot(centre, medians, color=MAIN, linewidth=1.2, label="each frame")
        if deadline_ms is not None:
            axes.axhline(deadline_ms, color=WARM, linewidth=1.2, linestyle="--", label="deadline")
        if dropped_s is not None and len(dropped_s):
            top = 1.04 * max(float(times_ms.max()), deadline_ms or 0.0)
            height = np.full(len(dropped_s), top)
            axes.scatter(dropped_s, height, marker="|", color=WARM, s=30, label="dropped")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.005)
        axes.set_xlabel("time since the start, s")
        axes.set_ylabel("latency, ms")
        axes.grid(axis="y", linewidth=0.6)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)

    return _render(paint, "series", 3.0)


def draw_stages(names: Sequence[str], stages: Sequence[Mapping[str, float]]) -> str:
    """Draw the median time of each stage, one stacked bar a report.

    Args:
        names: Label of each bar; an empty one leaves the label out.
        stages: For each bar the ms of "pre", "infer" and "post".
    """

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        rows = np.arange(len(names))
        left = np.zeros(len(names))
        for key, (label, colour) in STAGES.items():
            widths = np.array([stage[key] for stage in stages])
            if len(names) == 1:
                label = f"{label} {widths[0]:.3g} ms"
            axes.barh(rows, widths, left=left, height=0.56, color=colour, label=label, linewidth=0)
            left += widths
        _label_rows(axes, names)
        axes.set_xlabel("median, ms")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)

    return _render(paint, "stages", 1.25 + 0.36 * len(names))


def draw_bars(names: Sequence[str], values: Mapping[str, Sequence[float]], unit: str) -> str:
    """Draw one or two figures of several reports as labelled bars.

    Args:
        names: Label of each report.
        values: Name of each figure, and its value in each report.
        unit: Of all values.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        height = 0.76 / len(values)
        rows = np.arange(len(names))
        for index, (label, series) in enumerate(values.items()):
            offset = (index - (len(values) - 1) / 2) * height
            colour = (MAIN, SOFT)[index % 2]
            bars = axes.barh(
                rows + offset, list(series), height=0.9 * height, color=colour, label=label
            )
            axes.bar_label(bars, labels=[f"{value:.3g}" for value in series], padding=4, color=INK)
        _label_rows(axes, names)
        axes.margins(x=0.08)
        axes.set_xlabel(unit)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)

    return _render(paint, "bars", 1.25 + 0.34 * len(names) * len(values))


def _draw_marks(axes: "Axes", marks: Mapping[str, float]) -> None:
    """Draw vertical lines, each up to its name in a row of its own above the plot."""
    for index, (name, value) in enumerate(marks.items()):
        row = len(marks) - 1 - index
        style = "-" if index == 0 else "--"
        above = axes.get_xaxis_transform()
        axes.plot(
            [value, value],
            [0, 1.08 + 0.1 * row],
            color=WARM,
            linewidth=1.1,
            linestyle=style,
            transform=above,
            clip_on=False,
        )
        across = (axes.transScale + axes.transLimits).transform((value, 1.0))[0]
        axes.annotate(
            f"{name} {value:.3g}",
            (value, 1.02 + 0.1 * row),
            xycoords=above,
            xytext=(4, 0) if across < 0.8 else (-4, 0),
            textcoords="offset points",
            horizontalalignment="left" if across < 0.8 else "right",
            color=INK,
            annotation_clip=False,
        )


def _label_plainly(axis: "Axis", low: float, high: float, steps: Sequence[int]) -> None:
    """Label a logarithmic axis with plain numbers: each decade times `steps`."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _label_rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_plain_text(name) for name in names])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", linewidth=0.6)


def _plain_text(name: str) -> str:
    """Keep matplotlib from reading dollar signs as formulas, and long names from filling it."""
    shown = name if len(name) <= 40 else f"{name[:20]}...{name[-17:]}"
    return shown.replace("$", r"\$")


def _render(
    paint: Callable[["Figure"], None], name: str, height_in: float, layout: Any = "constrained"
) -> str:
    """Draw on a figure of our width and return the <svg> element, fit to stand in a page."""
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout=layout)
        paint(figure)
        buffer = io.StringIO()
        hidden: dict[str, Any] = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=hidden)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    # Several pictures share a page, so their identifiers must differ.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r" font-family: [^;\"]*;", "", text)  # the page has a font
    text = re.sub(r"<style[^>]*>[^<]*</style>", "", text)  # would apply to the whole page
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text
