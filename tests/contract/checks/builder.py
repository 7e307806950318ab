"""The builder, call by call, against the genuine classes of each version; success and failures."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from irstd.compile.builders.tensorrt import MIB, PlanSettings, build_plan, inspect_plan
from irstd.compile.builders.tensorrt_plugins import QuickPlugins
from irstd.errors import BuildError, BundleMismatch, DeviceError, MissingDependency, UsageError
from irstd.runtime.tensorrt.api import LOG_LINES
from irstd.types import Precision
from tests.contract.double import MAGIC, Plan, Script, tensorrt_double
from tests.contract.double_network import Refusal
from tests.contract.recorded import (
    CARD_IS_FULL,
    NO_BUILDER_RESOURCE,
    NO_CUDA,
    NO_IMPLEMENTATION,
    PLUGIN_NOT_FOUND,
    SKIPPED_TACTIC,
    ParserError,
)


@pytest.fixture
def build(trt, model):
    """Return a function (script, **settings) that builds; its double is `build.module`."""

    class Build:
        module: Any = None

        def __call__(self, script=None, timing_cache=b"", tell=None, graph=model, **options):
            self.module = trt_module = tensorrt_double(trt, script)
            settings = PlanSettings(**options)
            return build_plan(graph, settings, timing_cache=timing_cache, tell=tell, trt=trt_module)

    return Build()


def only(build, name):
    (found,) = build.module.double.record[name]
    return found


def test_a_plan_is_built_strongly_typed_without_tf32(trt, build):
    built = build()
    plan = Plan.from_bytes(built.plan)
    assert plan.facts["strongly_typed"]
    assert plan.facts["flags"] == []
    assert plan.facts["level"] == 3
    assert built.library == f"TensorRT {trt.__version__}"
    assert [layer.name for layer in built.layers] == ["first", "second", "third"]
    assert (built.dla_layers, built.skipped_tactics, built.notes) == ((), 0, ())
    config = only(build, "IBuilderConfig")
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert config._limits == {}


def test_types_are_never_left_to_the_builder(build):
    for precision in Precision:
        assert Plan.from_bytes(build(precision=precision).plan).facts["flags"] == []


@pytest.mark.parametrize(
    ("memory_mib", "workspace_mib"), [(4096, 512), (7616, 952), (65536, 4096), (256, 64)]
)
def test_scratch_memory_follows_the_board(trt, build, memory_mib, workspace_mib):
    build(memory_bytes=memory_mib * MIB)
    limits = {trt.MemoryPoolType.WORKSPACE: workspace_mib * MIB}
    assert only(build, "IBuilderConfig")._limits == limits


def test_asked_scratch_memory_comes_first(trt, build):
    build(memory_bytes=8 << 30, workspace_bytes=300 * MIB)
    assert only(build, "IBuilderConfig")._limits == {trt.MemoryPoolType.WORKSPACE: 300 * MIB}


def test_options_reach_tensorrt(build):
    facts = Plan.from_bytes(
        build(optimization_level=5, version_compatible=True, strip_weights=True).plan
    ).facts
    assert facts["level"] == 5
    assert facts["flags"] == ["REFIT_IDENTICAL", "STRIP_PLAN", "VERSION_COMPATIBLE"]


def test_a_plan_without_weights_gets_those_of_its_graph_before_it_is_inspected(build):
    assert len(build(strip_weights=True).layers) == 3
    assert only(build, "Refitter")._graph
    build()
    assert "Refitter" not in build.module.double.record


def test_weights_of_another_graph_are_refused(trt, build):
    plan = build(strip_weights=True).plan
    with pytest.raises(BundleMismatch, match=r"the graph does not give them .Name not found in"):
        inspect_plan(plan, trt=tensorrt_double(trt), weights=b"another")


def test_weights_that_do_not_fit_into_memory_are_told(build):
    with pytest.raises(DeviceError, match="cannot put the weights into the engine"):
        build(Script(refits=False), strip_weights=True)


def test_dla_runs_what_it_can(trt, build):
    built = build(Script(dla_cores=2), dla_core=1)
    assert built.dla_layers == ("first", "second")
    config = only(build, "IBuilderConfig")
    assert (config.default_device_type, config.DLA_core) == (trt.DeviceType.DLA, 1)
    assert Plan.from_bytes(built.plan).facts["flags"] == ["GPU_FALLBACK"]


@pytest.mark.parametrize("cores", [0, 1])
def test_a_dla_core_that_is_not_there_is_refused(build, cores):
    with pytest.raises(DeviceError, match=f"DLA core 1: TensorRT .* sees {cores} on this device"):
        build(Script(dla_cores=cores), dla_core=1)


def test_measurements_are_carried_on(build):
    first = build()
    assert first.timing_cache
    second = build(timing_cache=first.timing_cache)
    assert second.notes == ()
    assert second.timing_cache.startswith(first.timing_cache)


@pytest.mark.parametrize(
    "cache", [b"rubbish", b"double of a timing cache of 9.9.9 built"], ids=["damaged", "other"]
)
def test_measurements_of_another_machine_are_named_and_left(build, cache):
    built = build(timing_cache=cache)
    assert built.notes == (
        "the timing cache is of another TensorRT or another GPU, or damaged: measured anew",
    )
    assert built.timing_cache
    assert cache not in built.timing_cache


def test_progress_is_told(build):
    told = []
    build(tell=lambda *step: told.append(step))
    assert told[0] == ("Building Engine", 0, 1)
    assert [step for step in told if step[0] == "Tactic Selection"] == [
        ("Tactic Selection", done, 3) for done in (0, 1, 2, 3, 3)
    ]
    assert told[-1] == ("Building Engine", 1, 1)


def test_ctrl_c_ends_the_build_between_steps(build):
    steps = []

    def press(step):
        steps.append(step)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build(Script(at_step=press, steps=50))
    assert len(steps) < 5
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_of_the_listener_ends_the_build_and_is_raised(build):
    def tell(phase, done, steps):
        raise ZeroDivisionError(phase)

    with pytest.raises(ZeroDivisionError, match="Building Engine"):
        build(tell=tell)


def test_a_refused_node_is_named_with_reason_and_remedy(build):
    errors = (
        ParserError("UNSUPPORTED_NODE_DATATYPE", "inputs must be FP32 or FP16", 7, "/h/Pow", "Pow"),
        ParserError("UNSUPPORTED_NODE", "No importer for op: DFT", 9, "", "DFT"),
    )
    with pytest.raises(BuildError) as caught:
        build(Script(parser_errors=errors))
    first, *lines = str(caught.value).splitlines()
    assert "refuses the graph: node Pow '/h/Pow' number 7: inputs must be FP32 or FP16" in first
    assert "(UNSUPPORTED_NODE_DATATYPE): this version does not compute the operator" in first
    assert "; then node DFT number 9: No importer for op: DFT (UNSUPPORTED_NODE)" in first
    assert lines[-1] == "  [error] ModelImporter.cpp: ERROR: No importer for op: DFT"


def test_a_missing_plugin_is_named(build):
    with pytest.raises(BuildError, match="the plugin of HaarGate is not loaded or of another"):
        build(Script(parser_errors=[PLUGIN_NOT_FOUND]))


def test_an_operator_that_tensorrt_lacks_is_not_taken_for_one_of_ours(build):
    error = dataclasses.replace(PLUGIN_NOT_FOUND, node_operator="DFT", code="INVALID_NODE")
    with pytest.raises(BuildError, match="this version does not have DFT: use a later TensorRT"):
        build(Script(parser_errors=[error]))


def test_many_refusals_are_counted(build):
    errors = [ParserError("INVALID_NODE", f"bad {i}", i, f"n{i}", "Add") for i in range(9)]
    with pytest.raises(BuildError, match=r"bad 2 .*; and 6 more") as caught:
        build(Script(parser_errors=errors))
    assert "bad 3 (" not in str(caught.value)


def test_every_code_of_the_parser_has_its_message(trt, build):
    for code in trt.ErrorCode.__members__:
        with pytest.raises(BuildError, match=rf"\({code}\): [a-z]"):
            build(Script(parser_errors=[ParserError(code, "no", 1, "node", "Conv")]))


def test_what_is_no_graph_is_refused(build):
    with pytest.raises(BuildError, match=r"MODEL_DESERIALIZE_FAILED.*the graph is damaged"):
        build(graph=b"not a graph")


def test_short_memory_is_named_with_the_node_and_the_remedy(build):
    with pytest.raises(BuildError) as caught:
        build(Script(builds=False, build_log=NO_IMPLEMENTATION), memory_bytes=8192 * MIB)
    text = str(caught.value)
    assert "ran out of device memory of 8192 MiB while building for node {ForeignNode" in text
    assert "its workspace had 1024 MiB" in text
    assert "Requested amount of GPU memory (15485030400 bytes)" in text


def test_a_node_without_kernel_is_named(build):
    log = [("ERROR", "Error Code 10: Internal Error (Could not find any implementation for node "
            "/head/Conv + /head/Relu.)")]  # fmt: skip
    with pytest.raises(BuildError, match=r"no kernel for node /head/Conv \+ /head/Relu: allow"):
        build(Script(builds=False, build_log=log))


def test_no_engine_without_a_reason_says_so(build):
    with pytest.raises(BuildError, match="gives no engine; TensorRT's log says nothing"):
        build(Script(builds=False))


def test_the_log_of_an_error_is_of_that_build(build):
    with pytest.raises(BuildError):
        build(Script(builds=False, build_log=[("ERROR", "of the first")]))
    with pytest.raises(BuildError) as caught:
        build(Script(builds=False, build_log=[("ERROR", "of the second")]))
    assert "of the second" in str(caught.value)
    assert "of the first" not in str(caught.value)


def test_skipped_kernels_are_counted_beyond_what_the_log_keeps(build):
    log = [*SKIPPED_TACTIC, *[("INFO", "detail")] * (2 * LOG_LINES), *SKIPPED_TACTIC]
    assert build(Script(build_log=log)).skipped_tactics == 2


@pytest.mark.parametrize(
    ("log", "kind", "said"),
    [
        (NO_CUDA, DeviceError, "cannot use CUDA: the driver is older than the CUDA"),
        (CARD_IS_FULL, DeviceError, "the device's memory is full: stop what uses it"),
        (NO_BUILDER_RESOURCE, MissingDependency, "does not find libnvinfer_builder_resource"),
        ((), DeviceError, "makes no Builder: irstd-compile doctor says more"),
    ],
    ids=["no driver", "full", "resource", "silent"],
)
def test_no_builder_says_why(build, log, kind, said):
    with pytest.raises(kind, match=said):
        build(Script(makes_builder=False, start_log=log))


def test_no_network_says_so(build):
    with pytest.raises(DeviceError, match="makes no network"):
        build(Script(makes_network=False))


def test_a_plan_that_does_not_load_is_an_error(build):
    with pytest.raises(BuildError, match=r"does not deserialize.*\n.*Version tag does not match"):
        build(Script(deserializes=False))


@pytest.mark.parametrize("plan", [b"", b"rubbish", MAGIC[:-4]])
def test_what_is_no_plan_is_refused(trt, plan):
    with pytest.raises(BuildError, match="does not deserialize"):
        inspect_plan(plan, trt=tensorrt_double(trt))


def test_no_runtime_says_so(trt):
    with pytest.raises(DeviceError, match="makes no Runtime"):
        inspect_plan(b"", trt=tensorrt_double(trt, Script(makes_runtime=False)))


def test_plugin_libraries_are_loaded_and_kept_in_plans_for_later_versions(build, tmp_path):
    library = tmp_path / "haar_gate.so"
    library.touch()
    script = Script(libraries={str(library): "HaarGate"})
    build(script, plugin_libraries=(library,))
    assert only(build, "IPluginRegistry")._loaded == [str(library)]
    assert only(build, "IBuilderConfig").plugins_to_serialize == []
    build(script, plugin_libraries=(library,), version_compatible=True)
    assert only(build, "IBuilderConfig").plugins_to_serialize == [str(library)]


def test_plugin_libraries_that_do_not_load_are_named(build, tmp_path):
    library = tmp_path / "other.so"
    with pytest.raises(UsageError, match=r"other\.so: no such plugin library"):
        build(plugin_libraries=(library,))
    library.touch()
    with pytest.raises(DeviceError, match=r"other\.so: TensorRT does not load this plugin"):
        build(plugin_libraries=(library,))


def test_quick_plugins_are_registered_where_the_version_has_them(trt, version, build, monkeypatch):
    module = tensorrt_double(trt)
    registry = module.get_plugin_registry()
    # The bindings' own Python asks the module itself.
    monkeypatch.setattr(trt, "get_plugin_registry", lambda: registry)
    quick = QuickPlugins(multiprocessors=8, architecture=87)
    if version < (10, 9):
        with pytest.raises(UsageError, match=r"puts no kernels into a plan; wanted 10\.9\.0 or"):
            build(quick_plugins=quick)
        return
    for _ in range(2):  # the second build finds them registered
        build(quick_plugins=quick)
    made = module.double.behind(registry)._creators
    assert ("irstd", "HaarGate") in made
    assert len(made) == 9


@pytest.fixture
def build_8_6(trt, version, build, model):
    """Return a function (script, **settings) that builds with what 8.6 has, of the genuine 10."""
    if version >= (11,):
        pytest.skip("11 no longer has what 8.6 builds with")

    class Flags:
        EXPLICIT_BATCH = trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH

    def run(script=None, **settings):
        module: Any = tensorrt_double(trt, script)
        module.__version__, module.NetworkDefinitionCreationFlag = "8.6.2", Flags
        del module.IProgressMonitor
        build.module = module
        return build_plan(model, PlanSettings(**settings), trt=module)

    return run


@pytest.mark.parametrize(
    ("precision", "flags"), [("fp32", []), ("fp16", ["FP16"]), ("int8", ["FP16", "INT8"])]
)
def test_tensorrt_8_6_is_allowed_the_types_of_the_graph(trt, build, build_8_6, precision, flags):
    built = build_8_6(precision=Precision(precision))
    facts = Plan.from_bytes(built.plan).facts
    assert (facts["flags"], facts["strongly_typed"]) == (flags, False)
    assert only(build, "INetworkDefinition").flags == 1 << int(
        trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
    )
    assert built.library == "TensorRT 8.6.2"


def test_tensorrt_8_6_keeps_weights_and_kernels_out_of_it(build_8_6):
    with pytest.raises(UsageError, match=r"8\.6\.2 keeps weights in its plans; wanted 10\.0"):
        build_8_6(strip_weights=True)
    with pytest.raises(UsageError, match=r"8\.6\.2 puts no kernels into a plan"):
        build_8_6(quick_plugins=QuickPlugins(8, 87))


def test_tensorrt_8_6_names_refused_nodes_by_number(trt, build_8_6, monkeypatch):
    for name in ("node_name", "node_operator"):  # of 10
        monkeypatch.delattr(trt.ParserError, name)
        monkeypatch.delattr(Refusal, name)
    with pytest.raises(BuildError, match="refuses the graph: node number 12: creator"):
        build_8_6(Script(parser_errors=[PLUGIN_NOT_FOUND]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimization_level": 6}, "level 6: wanted 0 to 5"),
        ({"optimization_level": -1}, "level -1"),
        ({"workspace_bytes": 100}, "wanted at least 1 MiB"),
        ({"dla_core": -1}, "wanted 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        PlanSettings(**settings)


def test_flags_name_all_that_decides_the_plan():
    plain = PlanSettings()
    changed = {
        "dla_core": 0, "optimization_level": 4, "quick_plugins": QuickPlugins(8, 87),
        "strip_weights": True, "version_compatible": True, "workspace_bytes": 5 * MIB,
        "memory_bytes": 8 << 30,
    }  # fmt: skip
    # The graph and the libraries have hashes of their own in a key.
    elsewhere = {"precision", "plugin_libraries"}
    assert {field.name for field in dataclasses.fields(plain)} == {*changed, *elsewhere}
    for name, value in changed.items():
        assert PlanSettings(**{name: value}).flags != plain.flags
    assert PlanSettings(plugin_libraries=(Path("a"),)).flags == plain.flags
