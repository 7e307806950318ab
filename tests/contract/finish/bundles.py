"""What `finish` leaves: in the bundle, in the cache, in the report; and what it verifies."""

import io
import json

import numpy as np

from irstd.bundle import read_bundle, write_bundle
from tests.contract.double import MAGIC
from tests.contract.finish_fixtures import member


def test_plan_is_a_plain_file_that_other_tools_load(portable, finish, tmp_path):
    path = portable()
    finish(path)
    plan = member(path, ".plan")
    stored = read_bundle(path).read(plan)
    assert stored.startswith(MAGIC)
    assert (tmp_path / "engines-cache" / plan).read_bytes() == stored


def test_again_is_instant_and_changes_nothing(portable, finish, world):
    path = portable()
    finish(path)
    before = path.read_bytes()
    world.install()
    code, report, _ = finish(path)
    assert (code, report["origin"], world.builds) == (0, "bundle", 0)
    assert path.read_bytes() == before


def test_a_link_stays_one_and_what_it_leads_to_is_finished(portable, finish, tmp_path):
    path, link = portable(), tmp_path / "current.irstd"
    link.symlink_to(path.name)
    assert finish(link)[0] == 0
    assert link.is_symlink()
    assert read_bundle(path).manifest.engines
    code, report, _ = finish(link)
    assert (code, report["origin"]) == (0, "bundle")


def test_of_an_endless_record_in_the_cache_the_beginning_is_read(portable, finish, tmp_path):
    finish(portable())
    (record,) = (tmp_path / "engines-cache" / "engines").glob("*.json")
    record.unlink()
    record.symlink_to("/dev/zero")
    code, report, err = finish(portable())
    assert (code, report["origin"]) == (0, "built")
    assert "built anew" in err


def test_same_bundle_from_elsewhere_is_found_in_the_cache(portable, finish, world, tmp_path):
    finish(portable(), "-o", tmp_path / "a.irstd")
    world.install()
    code, report, _ = finish(portable(), "-o", tmp_path / "b.irstd")
    assert (code, report["origin"], world.builds) == (0, "cache", 0)
    first, second = (read_bundle(tmp_path / f"{name}.irstd") for name in "ab")
    assert (
        first.members[member(first.path, ".plan")] == second.members[member(second.path, ".plan")]
    )
    assert not read_bundle(tmp_path / "tiny.irstd").manifest.engines


def test_rebuild_builds_whatever_there_is(portable, finish, world):
    path = portable()
    finish(path)
    world.install()
    code, report, _ = finish(path, "--rebuild")
    assert (code, report["origin"], world.builds) == (0, "built", 1)


def test_no_cache_keeps_nothing(portable, compile_command, world, tmp_path, monkeypatch):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "none"))
    assert compile_command("finish", portable(), "--no-cache")[0] == 0
    assert not (tmp_path / "none" / "engines").exists()


def test_damaged_cache_is_made_again(portable, finish, world, tmp_path):
    finish(portable(), "-o", tmp_path / "a.irstd")
    for file in (tmp_path / "engines-cache" / "engines").iterdir():
        if file.suffix != ".lock":
            file.write_bytes(file.read_bytes()[:-1] + b"?")
    world.install()
    code, report, _ = finish(portable())
    assert (code, report["origin"], world.builds) == (0, "built", 1)


def test_verify_and_inspect_know_a_finished_bundle(portable, finish, compile_command):
    path = portable()
    finish(path)
    code, report, err = compile_command("verify", path)
    assert (code, report["passed"]) == (0, True), err
    code, report, _ = compile_command("inspect", path)
    assert report["manifest"]["engines"][0]["library"].startswith("TensorRT ")


def test_report_says_where_it_was_finished_and_what_the_engine_does(portable, finish):
    path = portable()
    finish(path)
    report = json.loads(read_bundle(path).read("report.json"))
    assert report["finish"]["origin"] == "built"
    assert report["finish"]["layers"]
    assert report["finish"]["build"]["skipped_tactics"] == 0
    assert report["settings"]["target"] == "jetson-orin-nano"


def test_budget_on_data_is_verified_on_the_device(portable, finish, make_data):
    path = portable("fp16")
    data = make_data()
    code, report, err = finish(path, "--data", data, "--budget", "hse=-50,pd=-50,fa=+500")
    assert code == 0, err
    assert report["verdict"]["passed"]
    assert report["verdict"]["accuracy"]["fp32"]["targets"] > 0
    # Data on a bundle that is finished already: nothing is rebuilt, but measured.
    code, report, _ = finish(path, "--data", data)
    assert (code, report["origin"]) == (0, "bundle")
    assert report["verdict"] is not None


def test_violated_budget_writes_nothing(portable, finish, make_data, monkeypatch):
    from irstd.compile import finish_proof as module

    path = portable()
    before = path.read_bytes()
    real = module.score_frames

    def blind(files, read, logits, threshold, progress, what):
        seen = logits if what == "scoring fp32" else lambda frame: np.full_like(logits(frame), -9)
        return real(files, read, seen, threshold, progress, what)

    monkeypatch.setattr(module, "score_frames", blind)
    code, report, _ = finish(path, "--data", make_data(), "--budget", "pd=-1")
    assert (code, report["error"]["type"]) == (4, "BudgetExceeded")
    assert path.read_bytes() == before


def test_budget_needs_labels(portable, finish):
    code, report, _ = finish(portable(), "--budget", "pd=-1")
    assert (code, report["error"]["type"]) == (2, "UsageError")


def test_golden_frames_that_disagree(portable, finish, world):
    path = portable()
    whole = path.read_bytes()
    logits = np.load(io.BytesIO(read_bundle(path).read("golden/deployed_000.npy")))
    buffer = io.BytesIO()
    np.save(buffer, logits + np.float32(3))
    bundle = read_bundle(path)
    data = {name: bundle.read(name) for name in bundle.members}
    write_bundle(path, bundle.manifest, data | {"golden/deployed_000.npy": buffer.getvalue()})
    before = path.read_bytes()
    code, report, _ = finish(path)
    assert (code, report["error"]["type"]) == (5, "ParityFailed")
    assert "golden" in report["error"]["message"]
    assert "--rebuild" not in report["error"]["message"]
    assert path.read_bytes() == before
    # The next time the engine comes from the cache, and might be a bad one.
    assert "--rebuild" in finish(path)[1]["error"]["message"]
    path.write_bytes(whole)
    assert finish(path)[0] == 0
