"""`finish` with TensorRT for RTX: on a card that is not there, and computes what graphs say."""

import json

import pytest

import irstd
from irstd.bundle import read_bundle, write_bundle
from irstd.compile import finish_rtx
from irstd.compile.builders import tensorrt_rtx_bundle
from irstd.compile.builders.tensorrt_rtx import RtxEngine
from irstd.engine_record import EngineDevice
from irstd.runtime import detector
from irstd.runtime.kernels.cuda.bindings import Properties
from irstd.runtime.sessions import open_session

LIBRARY = "tensorrt_rtx 9"
MAGIC = b"engine of "


class Card:
    """A machine with a card that runs engines of `build`: the graph, node by node in float32."""

    def __init__(self):
        self.architecture = 89
        self.gpu = "RTX 4060"
        self.builds = 0
        self.is_wrong = False

    def build(self, model, capability, tell=None):
        del tell
        self.builds += 1
        return RtxEngine(MAGIC + model, LIBRARY, capability, (), 0.1)

    def device_with(self, library):
        device = EngineDevice(library, 13, self.gpu, "", self.architecture, 24, "580.95.05")
        return device, Properties(self.gpu, self.architecture, 24, 8 << 30, 1 << 25, False)

    def open(self, name, plan, threads=None, weights=None):
        assert weights is None
        del threads
        assert (name, plan[: len(MAGIC)]) == ("tensorrt_rtx", MAGIC)
        session = open_session("reference", plan.removeprefix(MAGIC))
        return Wrong(session) if self.is_wrong else session


class Wrong:
    """A session that computes something else."""

    def __init__(self, session):
        self.session, self.input_shape = session, session.input_shape
        self.close = session.close

    def run(self, x):
        return tuple(9 - logits for logits in self.session.run(x))


@pytest.fixture
def card(monkeypatch):
    made = Card()
    for module in (finish_rtx, tensorrt_rtx_bundle):
        monkeypatch.setattr(module, "build_rtx_engine", made.build)
        monkeypatch.setattr(module, "rtx_library", lambda: LIBRARY)
    monkeypatch.setattr(finish_rtx, "device_with", made.device_with)
    for module in (finish_rtx, detector):
        monkeypatch.setattr(module, "open_session", made.open)
    return made


@pytest.fixture
def bundle(card, build):
    """A bundle for the card, with its engine."""
    path = build(precision="fp16", target="rtx-40", cache=None, use_cache=False).path
    assert card.builds == 1
    return path


def test_the_engine_of_the_bundle_is_proven_and_runs_from_then_on(card, bundle, compile_command):
    before = read_bundle(bundle)
    (member,) = (name for name in before.members if name.endswith(".rtx"))
    engine = before.read(member)
    code, report, err = compile_command("finish", bundle)
    assert code == 0, err
    assert (report["origin"], report["engine"]["library"], card.builds) == ("bundle", LIBRARY, 1)
    after = read_bundle(bundle)
    (choice,) = after.manifest.engines
    assert (choice.session, choice.member, choice.chosen) == ("tensorrt_rtx", member, True)
    assert after.read(member) == engine
    assert json.loads(after.read("report.json"))["finish"]["golden"]["passed"]
    with irstd.open_bundle(bundle) as opened:
        assert opened.manifest.engines == after.manifest.engines


def test_again_on_the_same_card_is_instant_and_changes_nothing(card, bundle, compile_command):
    _, first, _ = compile_command("finish", bundle)
    before = bundle.read_bytes()
    card.is_wrong = True  # whatever runs, fails
    code, report, err = compile_command("finish", bundle)
    assert code == 0, err
    assert report == first | {"golden": None, "median_ms": None}
    assert bundle.read_bytes() == before


def test_again_elsewhere_is_proven_again(card, bundle, compile_command, tmp_path, make_data):
    compile_command("finish", bundle)
    copy = tmp_path / "copy.irstd"
    for words in ([], ["-o", copy], ["--data", make_data()]):
        card.gpu = "RTX 4070" if not words else "RTX 4060"
        before = bundle.read_bytes()
        code, report, err = compile_command("finish", bundle, *words)
        assert (code, report["origin"]) == (0, "bundle"), err
        assert report["golden"]["passed"]
        assert report["device"]["gpu"] == card.gpu
        assert (bundle.read_bytes() == before) == ("-o" in words)


@pytest.mark.parametrize("told", [None, [], {}, {"device": 7}, {"device": {"gpu": "RTX 4060"}}])
def test_a_report_that_does_not_say_where_is_no_proof(told, card, bundle, compile_command):
    compile_command("finish", bundle)
    made = read_bundle(bundle)
    members = {name: made.read(name) for name in made.members}
    members["report.json"] = json.dumps({"finish": told}).encode()
    write_bundle(bundle, made.manifest, members)
    code, report, err = compile_command("finish", bundle)
    assert code == 0, err
    assert report["golden"]["passed"]


def test_rebuild_builds(card, bundle, compile_command):
    code, report, _ = compile_command("finish", bundle, "--rebuild")
    assert (code, report["origin"], card.builds) == (0, "built", 2)
    assert len([name for name in read_bundle(bundle).members if name.endswith(".rtx")]) == 1


def test_a_bundle_without_the_engine_gets_one(card, build, compile_command, monkeypatch):
    monkeypatch.setattr(tensorrt_rtx_bundle, "SESSION", "not for this test")
    path = build(precision="fp16", target="rtx-40", cache=None, use_cache=False).path
    code, report, err = compile_command("finish", path)
    assert (code, card.builds) == (0, 1), err
    assert report["origin"] == "built"


def test_data_is_scored_against_fp32(card, bundle, compile_command, make_data):
    code, report, err = compile_command("finish", bundle, "--data", make_data())
    assert code == 0, err
    assert report["verdict"]["accuracy"]["fp32"]["targets"] > 0
    assert card.builds == 2


def test_an_engine_that_disagrees_is_not_taken(card, bundle, compile_command):
    before = bundle.read_bytes()
    card.is_wrong = True
    code, report, _ = compile_command("finish", bundle)
    assert (code, report["error"]["type"]) == (5, "ParityFailed")
    assert "--rebuild" in report["error"]["message"]
    assert bundle.read_bytes() == before


def test_another_card_is_named(card, bundle, compile_command):
    card.architecture = 120
    code, report, _ = compile_command("finish", bundle)
    assert (code, report["error"]["type"]) == (6, "BundleMismatch")
    assert "sm_120" in report["error"]["message"]


@pytest.mark.usefixtures("card")
def test_other_targets_do_not_run_it(build, compile_command):
    path = build(precision="fp16", target="jetson-agx-orin", cache=None, use_cache=False).path
    code, report, _ = compile_command("finish", path, "--builder", "tensorrt_rtx")
    assert (code, report["error"]["type"]) == (6, "BundleMismatch")


def test_a_bundle_for_a_cpu_has_nothing_to_finish(build, compile_command):
    """Whatever this machine lacks."""
    code, report, _ = compile_command("finish", build().path)
    assert (code, report["error"]["type"]) == (6, "BundleMismatch")
    assert "there is nothing to finish; run it: irstd-run" in report["error"]["message"]


def test_unfinished_it_is_not_opened(bundle):
    with pytest.raises(irstd.errors.BundleMismatch, match="irstd-compile finish"):
        irstd.open_bundle(bundle, engine="tensorrt_rtx")
