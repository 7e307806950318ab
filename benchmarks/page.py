"""A report as one HTML file that opens from disk: no scripts, nothing fetched, light and dark."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from irstd.benchmarks import plots
from irstd.benchmarks.compare import compare
from irstd.benchmarks.latency import LatencyRun
from irstd.benchmarks.paced import DROPPED, PacedRun
from irstd.benchmarks.text import DEVELOPMENT_NOTE, number, title

_STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16191d; --muted: #5b6470; --grid: #dfe3e8;
  --main: #2f6fde; --soft: #c3d6f7; --warm: #c8500f; --pre: #1f9a83; --post: #d99a1c;
  --good: #17734a; --good-bg: #dff3e8; --bad: #a3260f; --bad-bg: #fbe3dd; --note-bg: #eceff3; }
@media (prefers-color-scheme: dark) { :root {
  --page: #111418; --card: #1a1e24; --ink: #e7eaee; --muted: #9aa5b1; --grid: #313842;
  --main: #6ea2ff; --soft: #2b4673; --warm: #ff9057; --pre: #45c2a9; --post: #ecb94a;
  --good: #7fdcae; --good-bg: #163527; --bad: #ff9a86; --bad-bg: #43201a; --note-bg: #252b33; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 16px; margin: 0 0 8px; }
p { margin: 4px 0; } .muted { color: var(--muted); }
section { background: var(--card); border: 1px solid var(--grid); border-radius: 10px;
  padding: 16px 20px; margin-top: 16px; overflow-x: auto; }
.verdict { display: flex; gap: 8px; flex-wrap: wrap; margin: 12px 0 4px; }
.verdict span { padding: 2px 12px; border-radius: 99px; font-weight: 600; font-size: 14px; }
.good { color: var(--good); background: var(--good-bg); }
.bad { color: var(--bad); background: var(--bad-bg); }
.note { color: var(--muted); background: var(--note-bg); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 16px; }
.figures div { background: var(--card); border: 1px solid var(--grid); border-radius: 10px;
  padding: 12px 16px; }
.figures b { display: block; font-size: 24px; line-height: 1.2; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.figures small { color: var(--muted); }
ul { margin: 6px 0; padding-left: 20px; }
svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--grid); text-align: right;
  vertical-align: top; }
th { font-weight: 600; color: var(--muted); }
tr > :first-child, table.plain td { text-align: left; }
table.plain td { overflow-wrap: anywhere; }
table.plain td:first-child { color: var(--muted); width: 32%; }
tr:last-child > * { border-bottom: 0; }
pre, code { font: 13px/1.45 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
pre { overflow-x: auto; margin: 8px 0 0; }
summary { cursor: pointer; font-weight: 600; }
"""


def latency_page(report: Mapping[str, Any], run: LatencyRun) -> str:
    """Return the page of a latency report."""
    samples, latency = run.samples, report["latency_ms"]
    figures = {
        "median": f"{number(latency['p50'], 3)} ms",
        "99th percentile": f"{number(latency['p99'], 3)} ms",
        "frames/s on average": number(report["throughput_fps"], 3),
        "frames/s at p99": number(report["guaranteed_fps"], 3),
        "outside the engine": f"{report['outside_engine_share']:.1%}",
    }
    parts = [
        _head(report),
        _figures(figures),
        _against(report["against"]) if "against" in report else "",
        _verdict(report),
        _section("Latency over the run", plots.draw_series(samples.started_s, samples.total_ms)),
        _section("How often each latency occurred", _histogram(samples.total_ms, latency)),
        _section("Where the time goes", plots.draw_stages([""], [report["stages_ms"]])),
        _percentiles(report),
        _windows(report),
        _machine(report),
    ]
    return _page(title(report), parts)


def paced_page(report: Mapping[str, Any], run: PacedRun) -> str:
    """Return the page of a paced report."""
    kept, latency = run.answered, report["latency_ms"]
    latency_ms = run.latency_ms[kept]
    figures = {
        "in time": f"{report['delivered']} of {report['frames']}",
        "late": str(report["late"]),
        "dropped": str(report["dropped"]),
        "99th percentile": f"{number(latency['p99'], 3)} ms",
        "jitter, p99": f"{number(report['jitter_ms']['p99'], 3)} ms",
    }
    series = plots.draw_series(
        run.captured_at_s[kept],
        latency_ms,
        deadline_ms=run.deadline_ms,
        dropped_s=run.captured_at_s[run.status == DROPPED],
    )
    parts = [
        _head(report, f"paced at {report['rate_hz']:g} frames/s, policy {report['policy']}"),
        _figures(figures),
        _verdict(report),
        _section("Latency from the scheduled arrival", series),
        _section("How often each latency occurred", _histogram(latency_ms, latency)),
        _section("Where the time goes", plots.draw_stages([""], [report["stages_ms"]])),
        _percentiles(report),
        _windows(report),
        _machine(report),
    ]
    return _page(title(report), parts)


def comparison_page(
    names: Sequence[str], reports: Sequence[Mapping[str, Any]], warnings: Sequence[str]
) -> str:
    """Return the page of a comparison of reports of one kind."""
    parts = [
        f"<h1>{len(reports)} {escape(reports[0]['kind'])} reports</h1>",
        '<p class="muted">Changes are against the first.</p>',
        _list("Read with care", warnings) if warnings else "",
    ]
    if reports[0]["kind"] == "accuracy":
        values = {"HSE": [r["hse"] for r in reports], "IoU": [r["iou"] for r in reports]}
        parts.append(_section("Accuracy", plots.draw_bars(names, values, "%")))
    else:
        values = {
            "median": [r["latency_ms"]["p50"] for r in reports],
            "99th percentile": [r["latency_ms"]["p99"] for r in reports],
        }
        parts.append(_section("Latency", plots.draw_bars(names, values, "ms")))
    if reports[0]["kind"] == "latency":
        stages = [report["stages_ms"] for report in reports]
        parts.append(_section("Where the time goes", plots.draw_stages(names, stages)))
    parts.append(_comparison_table(names, reports))
    return _page(f"{len(reports)} {reports[0]['kind']} reports", parts)


def _comparison_table(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> str:
    accuracy = reports[0]["kind"] == "accuracy"
    rows: list[tuple[str, ...]] = [("engine", *(report["engine"] for report in reports))]
    for row in compare(reports):
        cells = [row.name]
        for index, (value, change) in enumerate(zip(row.values, row.change, strict=True)):
            shown = number(int(value) if value.is_integer() else value)
            if index and change is not None:
                shown += f" ({change:+.3g})" if accuracy else f" ({change:.2f}x)"
            cells.append(shown)
        rows.append(tuple(cells))
    return _section("All figures", _table(("", *names), rows))


def _histogram(times_ms: Any, latency: Mapping[str, float]) -> str:
    marks = {name: latency[name] for name in ("p50", "p90", "p99", "max")}
    return plots.draw_histogram(np.asarray(times_ms), marks)


def _page(heading: str, parts: Sequence[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _head(report: Mapping[str, Any], more: str = "") -> str:
    what = report["footage"]["description"]
    line = f"{what}; {report['frames']} in {report['seconds']:.1f} s, {report['started_at']}"
    lines = [f"<h1>{escape(title(report))}</h1>"]
    lines += [f'<p class="muted">{escape(text)}</p>' for text in (more, line) if text]
    return "\n".join(lines)


def _figures(figures: Mapping[str, str]) -> str:
    boxes = [
        f"<div><small>{escape(name)}</small><b>{escape(value)}</b></div>"
        for name, value in figures.items()
    ]
    return f'<div class="figures">{"".join(boxes)}</div>'


def _verdict(report: Mapping[str, Any]) -> str:
    validity = report["validity"]
    stable = ("good", "stable") if validity["ok"] else ("bad", "not stable")
    enough = ("good", "publishable") if validity["publishable"] else ("note", "not publishable")
    pills = [stable, enough]
    if report["p99_indicative"]:
        pills.append(("note", "p99 indicative"))
    if report["numbers"] == "development":
        pills.append(("note", "development numbers"))
    spans = "".join(f'<span class="{style}">{text}</span>' for style, text in pills)
    notes = list(validity["warnings"])
    if report["numbers"] == "development":
        notes.append(DEVELOPMENT_NOTE)
    items = "".join(f"<li>{escape(reason)}</li>" for reason in validity["reasons"])
    items += "".join(f'<li class="muted">{escape(note)}</li>' for note in notes)
    return _section("Verdict", f'<div class="verdict">{spans}</div><ul>{items}</ul>')


def _against(other: Mapping[str, Any]) -> str:
    ratio = other["ratio"]
    text = (
        f"{title(other)}, measured in turns with this one, takes {ratio['p50']:.3f} times as long "
        f"(95 %: {ratio['low']:.3f} to {ratio['high']:.3f}): {number(other['latency_ms']['p50'])} "
        f"ms at p50, {number(other['latency_ms']['p99'])} ms at p99."
    )
    notes = "".join(f"<li>{escape(reason)}</li>" for reason in other["validity"]["reasons"])
    return _section("Against another bundle", f"<p>{escape(text)}</p><ul>{notes}</ul>")


def _percentiles(report: Mapping[str, Any]) -> str:
    latency, bounds = report["latency_ms"], report["p99_interval_ms"]
    names = tuple(latency)
    table = _table(
        ("", *(name.replace("_", ".") for name in names)),
        [("ms", *(number(latency[name]) for name in names))],
    )
    note = (
        f"95 % interval of p99: {number(bounds['low'])} to {number(bounds['high'])} ms. "
        f"Very first frame: {number(report['first_frame_ms'])} ms."
    )
    return _section("Percentiles", f'{table}<p class="muted">{escape(note)}</p>')


def _windows(report: Mapping[str, Any]) -> str:
    warm = report["warm_up"]
    named = [(f"warm-up {n}", window) for n, window in enumerate(warm["windows"], start=1)]
    named += [(f"measured {n}", window) for n, window in enumerate(report["windows"], start=1)]
    rows = [
        (
            name,
            str(window["frames"]),
            f"{window['seconds']:.2f}",
            number(window["rate_fps"]),
            number(window["p50_ms"]),
            number(window["p99_ms"]),
        )
        for name, window in named
    ]
    heads = ("window", "frames", "s", "frames/s", "p50 ms", "p99 ms")
    return _section("Warm-up and stability", _table(heads, rows))


def _machine(report: Mapping[str, Any]) -> str:
    skipped = ("latency_ms", "validity", "warm_up", "windows", "environment", "conditions")
    facts = {"command": report["command"]}
    facts |= {name: _fact(value) for name, value in report["environment"].items()}
    during = {name: _fact(value) for name, value in report["conditions"].items()}
    rest = {name: _fact(value) for name, value in report.items() if name not in skipped}
    full = json.dumps(report, indent=2, default=str)
    return "\n".join(
        [
            _section("Machine", _facts(facts)),
            _section("Meanwhile", _facts(during)),
            _section("Everything else", _facts(rest)),
            f"<section><details><summary>The report as JSON</summary><pre>{escape(full)}</pre>"
            "</details></section>",
        ]
    )


def _fact(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_fact(item) for item in value)
    return str(value)


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f'<table class="plain">{rows}</table>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _list(heading: str, lines: Sequence[str]) -> str:
    return _section(heading, "<ul>" + "".join(f"<li>{escape(li)}</li>" for li in lines) + "</ul>")


def _section(heading: str, inner: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{inner}</section>"
