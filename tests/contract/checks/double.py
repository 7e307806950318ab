"""The double itself: every behaviour is one that the genuine classes could have, and no more."""

import pytest

from irstd.runtime.tensorrt.api import LOG, tensorrt_logger
from tests.contract.double import Script, tensorrt_double
from tests.contract.recorded import NO_CUDA
from tests.contract.strict import ContractViolation, accepts, signatures, strict


class Config:
    builder_optimization_level = 3
    DLA_core = -1

    def set_flag(self, flag):
        self._flag = flag

    def get_memory_pool_limit(self, pool):
        return "a string"


@pytest.fixture
def config(trt):
    return strict(trt, trt.IBuilderConfig, Config())


def test_what_fits_is_taken(trt, config):
    config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    config.set_flag(flag=trt.BuilderFlag.STRIP_PLAN)
    config.builder_optimization_level = 5
    assert config.builder_optimization_level == 5
    assert isinstance(config, trt.IBuilderConfig)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda config: config.set_flag("FP16"), "flag: got str 'FP16', wanted BuilderFlag"),
        (lambda config: config.set_flag(4), "flag: got int 4, wanted BuilderFlag"),
        (lambda config: config.set_flag(), "flag is not given"),
        (lambda config: config.set_flag(None), "flag: got NoneType"),
        (lambda config: config.set_flag(flags=1), "knows no argument flags"),
        (lambda config: config.set_flag(1, 2), "got 2 arguments, takes 1"),
        (lambda config: config.reset(), "does not know what it does"),
        (lambda config: config.profiling_verbosity, "does not know its value"),
        (lambda config: setattr(config, "builder_optimization_level", "5"), "got str '5'"),
        (lambda config: setattr(config, "builder_optimization_level", 2.5), "got float 2.5"),
        (lambda config: setattr(config, "num_optimization_profiles", 1), "cannot be set"),
    ],
)
def test_what_does_not_fit_is_refused(config, call, said):
    with pytest.raises(ContractViolation) as caught:
        call(config)
    assert said in str(caught.value)


def test_names_that_the_version_lacks_are_refused(trt, config):
    with pytest.raises(AttributeError):
        config.max_workspace_size  # noqa: B018  of TensorRT 8
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1 << 30

    class Old:
        def build_engine(self, network, config): ...

    with pytest.raises(ContractViolation, match="has no build_engine"):
        strict(trt, trt.Builder, Old())


def test_a_double_cannot_return_what_the_genuine_does_not(trt, config):
    with pytest.raises(ContractViolation, match="the double returns str 'a string'"):
        config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)


def test_every_method_and_property_of_the_classes_we_use_is_understood(trt):
    """A signature that could not be read would hold nothing against anybody."""
    used = "Builder INetworkDefinition IBuilderConfig OnnxParser ParserError ITimingCache Runtime "
    used += "ICudaEngine IExecutionContext EngineInspector IPluginRegistry Refitter"
    for cls in [getattr(trt, name) for name in used.split()]:
        for name in dir(cls):
            member = getattr(cls, name)
            if name.startswith("_") or isinstance(member, type) or not callable(member):
                continue
            read = signatures(member.__doc__)
            assert read, f"{cls.__name__}.{name}: {member.__doc__}"
            for parameter in [p for one in read for p in one.parameters]:
                accepts(trt, parameter.kind, None)


def test_what_is_made_is_checked_too(trt):
    module = tensorrt_double(trt)
    with pytest.raises(ContractViolation, match="logger: got str"):
        module.Builder("logger")
    builder = module.Builder(tensorrt_logger(trt))
    with pytest.raises(ContractViolation):
        module.OnnxParser(builder, tensorrt_logger(trt))


def test_a_script_can_refuse_a_builder_as_the_bindings_do(trt):
    LOG.clear()
    module = tensorrt_double(trt, Script(makes_builder=False, start_log=NO_CUDA))
    with pytest.raises(TypeError, match="nullptr"):
        module.Builder(tensorrt_logger(trt))
    assert "CUDA initialization failure" in LOG.lines[-1]


def test_memory_of_tensorrt_is_a_buffer(trt):
    """The double has `bytes(memory)` for it; the genuine one is a buffer, which bytes() reads."""
    import ctypes

    empty = trt.IHostMemory.__new__(trt.IHostMemory)
    check = ctypes.pythonapi.PyObject_CheckBuffer
    check.argtypes = [ctypes.py_object]
    assert check(empty) == 1
    assert check(object()) == 0
