import json

import pytest

from irstd.benchmarks.compare import (
    LARGEST_BYTES,
    changes,
    comparison_text,
    find_differences,
    name_reports,
    read_report,
    read_reports,
)
from irstd.errors import InputError


@pytest.fixture
def write(tmp_path):
    def put(name, report):
        path = tmp_path / f"{name}.json"
        path.write_text(report if isinstance(report, str) else json.dumps(report))
        return path

    return put


def test_ratios_are_against_the_first(example):
    slow = example(throughput_fps=125.0)
    slow["latency_ms"] = {name: 2 * value for name, value in slow["latency_ms"].items()}
    got = changes([example(), slow])
    assert got["p50 ms"] == [1, 2]
    assert got["p99 ms"] == [1, 2]
    assert got["frames/s"] == [1, 0.5]
    assert got["infer ms"] == [1, 1]


def test_accuracy_changes_are_differences(example):
    got = changes([example("accuracy", hse=70.0), example("accuracy", hse=69.5)])
    assert got["HSE %"] == [0, -0.5]
    assert got["IoU %"] == [0, 0]


def test_a_first_of_zero_has_no_ratio(example):
    got = changes([example("paced", dropped=0), example("paced", dropped=3)])
    assert got["dropped"] == [None, None]
    assert "-" in comparison_text(["a", "b"], [example("paced")] * 2, [])


@pytest.mark.parametrize("kind", ["latency", "paced", "accuracy"])
def test_the_table_is_aligned_and_has_every_report(example, kind):
    reports = [example(kind), example(kind, engine="onnxruntime 1.31.1"), example(kind)]
    text = comparison_text(["one", "two", "three"], reports, ["beware"])
    lines = text.splitlines()
    assert lines[-1] == "note: beware"
    assert [name in lines[0] for name in ("one", "two", "three")] == [True] * 3
    assert "onnxruntime 1.31.1" in lines[1]
    column = lines[1].index("onnxruntime 1.31.1") + len("onnxruntime 1.31.1")
    ends = {len(line[:column].rstrip()) for line in lines[1:-1]}
    assert ends == {column}  # every figure of the second report ends where its engine does


def test_one_report_alone_is_fine(example, write):
    (report,) = read_reports([write("a", example())])
    assert "openvino" in comparison_text(["a"], [report], find_differences(["a"], [report]))


def test_differences_of_machine_frames_threads_and_validity_are_named(example):
    other = example(
        threads=2,
        environment={"cpu_model": "B", "cpu_cores": 2, "device": None, "machine": "x86_64"},
        footage={"sha256": "00" * 32},
        validity={"ok": False},
    )
    found = "\n".join(find_differences(["a", "b"], [example(), other]))
    assert "b: another machine, cpu_model 'B', but a has 'A'" in found
    assert "cpu_cores" not in found
    assert "b: threads 2, but a has 1" in found
    assert "frames of another hash" in found
    assert "b: not a stable measurement" in found
    assert "a: not a stable" not in found
    assert "development numbers" in found


def test_accuracy_on_other_data_is_named(example):
    first, other = example("accuracy"), example("accuracy", data_sha256="00" * 32)
    assert "another hash" in "".join(find_differences(["a", "b"], [first, other]))
    assert find_differences(["a", "b"], [first, first]) == []


@pytest.mark.parametrize("change", [{"kind": "paced"}, {"numbers": "device"}])
def test_reports_that_cannot_share_a_table_are_refused(example, write, change):
    paths = [write("a", example()), write("b", example(**change))]
    with pytest.raises(InputError, match=r"b\.json: .*one kind and one sort of device"):
        read_reports(paths)


def test_names_are_stems_unless_they_collide(tmp_path):
    a, b = tmp_path / "x" / "r.json", tmp_path / "y" / "r.json"
    assert name_reports([a, tmp_path / "s.json"]) == ["r", "s"]
    assert name_reports([a, b]) == [str(a), str(b)]


HOSTILE = {
    "empty": "",
    "text": "hello",
    "binary": "\x00\x01\x02",
    "a list": "[1, 2]",
    "a number": "17",
    "null": "null",
    "another object": '{"a": 1}',
    "cut short": '{"schema_version": 1, "kind": "lat',
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"schema_version":1,"x":' * 500 + "1" + "}" * 500,
    "long number": '{"schema_version": ' + "9" * 10_000 + "}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_a_report_is_one_clear_line(write, name):
    with pytest.raises(InputError, match=r"file\.json: ") as caught:
        read_report(write("file", HOSTILE[name]))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


CHANGES = {
    "newer schema": {"schema_version": 2},
    "schema of text": {"schema_version": "1"},
    "unknown kind": {"kind": "kernels"},
    "kind of another type": {"kind": ["latency"]},
    "figure missing": {"latency_ms": {}},
    "figure of text": {"throughput_fps": "fast"},
    "figure true": {"throughput_fps": True},
    "figure null": {"throughput_fps": None},
    "figures not an object": {"latency_ms": [1, 2, 3]},
    "figure beyond float": {"throughput_fps": 10**400},
    "no engine": {"engine": None},
    "engine that moves the cursor": {"engine": "\x1b[2J fast"},
    "endless engine": {"engine": "x" * 10_000},
    "engine of two lines": {"engine": "a\nb"},
    "no environment": {"environment": None},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_report_with_a_wrong_field_names_it(example, write, name):
    with pytest.raises(InputError, match=r"file\.json: ") as caught:
        read_report(write("file", example(**CHANGES[name])))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "1e999"])
def test_a_figure_that_is_not_finite_is_refused(example, write, figure):
    text = json.dumps(example(throughput_fps=123.25)).replace("123.25", figure)
    with pytest.raises(InputError, match=r"file\.json"):
        read_report(write("file", text))


def test_hostile_values_in_what_is_only_compared_stay_short(example):
    other = example(environment={"cpu_model": "\x1b[31m" + "x" * 5000, "cpu_cores": [[1]] * 900})
    for line in find_differences(["a", "b"], [example(), other]):
        assert len(line) < 300
        assert line.isprintable()


def test_a_huge_file_is_not_read_whole(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(InputError, match="MiB"):
        read_report(path)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_report(path)
