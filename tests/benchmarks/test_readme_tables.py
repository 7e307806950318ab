import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "readme_tables.py"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("readme_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["readme_tables"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["readme_tables"]


@pytest.fixture
def place(tmp_path):
    """A README with one table, a folder of results, and the flags that name them."""
    readme, results = tmp_path / "README.md", tmp_path / "results"
    results.mkdir()

    def put(name, file, content):
        readme.write_text(f"before\n<!-- table:{name} -->\nold\n<!-- /table -->\nafter\n")
        (results / file).write_text(json.dumps(content))
        return readme, ["--readme", str(readme), "--results", str(results)]

    return put


def comparison(*reports):
    return {"kind": "comparison", "command": "irstd-bench compare a b", "reports": list(reports)}


def test_a_comparison_becomes_a_row_a_report(tables, place, example):
    reports = comparison(example(), example(precision="fp32", threads=2))
    readme, flags = place("latency", "latency-acm.json", reports)
    assert tables.main(flags) == 0
    lines = readme.read_text().splitlines()
    assert lines[:2] == ["before", "<!-- table:latency -->"]
    assert lines[2].startswith("| Network | Precision | Engine |")
    assert lines[4] == "| toy | int8 | openvino 2026.4.1 | 1 | 4.00 | 8.00 | 250 | 125 |"
    assert lines[5].startswith("| toy | fp32 | openvino 2026.4.1 | 2 |")
    assert "`irstd-bench compare a b`" in lines[7]
    assert "measured on A, 2 cores" in lines[7]
    assert lines[-2:] == ["<!-- /table -->", "after"]


def test_check_finds_what_is_stale_and_changes_nothing(tables, place, example, capsys):
    readme, flags = place("accuracy", "accuracy-acm.json", comparison(example("accuracy")))
    before = readme.read_text()
    assert tables.main([*flags, "--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert readme.read_text() == before
    assert tables.main(flags) == 0
    assert tables.main([*flags, "--check"]) == 0
    assert "| irstd_1k | 50.0 | 51.0 | 52.0 | 53.0 | 56.0 |" in readme.read_text()


def test_a_changed_number_is_stale(tables, place, example):
    _, flags = place("accuracy", "accuracy-acm.json", comparison(example("accuracy")))
    tables.main(flags)
    results = Path(flags[-1]) / "accuracy-acm.json"
    results.write_text(json.dumps(comparison(example("accuracy", hse=70.04))))
    assert tables.main([*flags, "--check"]) == 1


def test_one_report_alone_and_a_plain_table(tables, place, example):
    readme, flags = place("latency", "latency-acm.json", example())
    assert tables.main(flags) == 0
    assert readme.read_text().count("| toy |") == 1
    rows = [["x|y", 1.5, 7], ["n/a", -2.25, 8], [None, 3.0, 9]]
    plain = {"command": "make x", "method": "so", "columns": ["a", "b", "c"], "rows": rows}
    readme, flags = place("accuracy", "accuracy-acm.json", plain)
    assert tables.main(flags) == 0
    lines = readme.read_text().splitlines()
    assert lines[2:4] == ["| a | b | c |", "| --- | ---: | ---: |"]
    assert lines[4:7] == [r"| x\|y | 1.50 | 7 |", "| n/a | -2.25 | 8 |", "| - | 3.00 | 9 |"]
    assert lines[8] == "`make x`, in `benchmarks/results/accuracy-acm.json`; so"


def test_kernels_have_their_goals_and_the_roofline_beside_them(tables, place):
    row = {"op": "haar_gate", "case": "reference", "dtype": "float32", "ours_ms": 2.0}
    rows = [
        row | {"peer": "onnxruntime", "peer_ms": 20.0, "ratio": 10.0},
        row | {"peer": "torch", "peer_ms": 40.0, "ratio": 20.0},
        row | {"case": "other", "peer": "onnxruntime", "peer_ms": 2.0, "ratio": 1.0},
    ]
    report = {
        "kind": "kernels",
        "command": "irstd-bench kernels",
        "environment": {"cpu_model": "A", "cpu_cores": 2},
        "roofline": {"float_gmac_s": 40.0, "int8_gmac_s": None, "copy_gb_s": 20.04},
        "results": rows,
    }
    readme, flags = place("kernels", "kernels-cpu.json", report)
    assert tables.main(flags) == 0
    lines = readme.read_text().splitlines()
    assert lines[4] == "| haar_gate | reference | float32 | 2.00 | onnxruntime | 20.0 | 10.0 | 6 |"
    assert [line.split(" | ")[-1] for line in lines[5:7]] == ["- |", "- |"]
    assert lines[8].endswith(
        "on A, 2 cores; a core's float32 multiply-adds: 40.0 G/s; a core's copied memory: 20.0 GB/s"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("unknown", {}, "unknown"),
        ("latency", [], "not a JSON object"),
        ("latency", {"kind": "comparison", "command": "c", "reports": [{}]}, "no network"),
    ],
)
def test_what_does_not_serve_is_an_error_and_leaves_the_page(
    tables, place, name, content, message, capsys
):
    readme, flags = place(name, "latency-acm.json", content)
    before = readme.read_text()
    assert tables.main(flags) == 1
    assert message in capsys.readouterr().err
    assert readme.read_text() == before


def test_a_missing_result_file_is_an_error(tables, place, capsys):
    _, flags = place("latency", "other.json", {})
    assert tables.main(flags) == 1
    assert "latency-acm.json" in capsys.readouterr().err


def test_a_page_without_tables_is_never_stale(tables, tmp_path):
    (tmp_path / "README.md").write_text("no tables\n")
    flags = ["--readme", str(tmp_path / "README.md"), "--results", str(tmp_path)]
    assert tables.main([*flags, "--check"]) == 0
