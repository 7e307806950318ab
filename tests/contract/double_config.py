"""The builder's configuration, its timing cache, and memory of TensorRT's, of the double."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.contract.double import Double

TIMING_MAGIC = b"double of a timing cache of "


class HostMemory:
    """IHostMemory: bytes of TensorRT's."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.nbytes = len(data)

    def __bytes__(self) -> bytes:
        return self._data


class TimingCache:
    """ITimingCache: which builds it has seen."""

    def __init__(self, double: "Double", data: bytes) -> None:
        self._double, self._data = double, data

    def serialize(self) -> Any:
        return self._double.of(self._double.trt.IHostMemory, HostMemory(self._data))


class Config:
    """IBuilderConfig with the defaults of the genuine one."""

    def __init__(self, double: "Double") -> None:
        trt = double.trt
        self._double = double
        self._flags = {trt.BuilderFlag.TF32}
        self._limits: dict[Any, int] = {}
        self._timing_cache: Any = None
        self.builder_optimization_level = 3
        self.progress_monitor: Any = None
        self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        self.plugins_to_serialize: list[str] = []
        self.default_device_type = trt.DeviceType.GPU
        self.DLA_core = -1

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        assert pool_size > 0, f"{pool.name}: {pool_size} bytes"
        if pool.name.startswith("DLA"):
            assert pool_size & (pool_size - 1) == 0, f"{pool.name}: {pool_size}, no power of two"
        self._limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._limits.get(pool, 1 << 40)

    def can_run_on_DLA(self, layer: Any) -> bool:
        return self._double.behind(layer)._operator not in self._double.script.dla_refuses

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        data = bytes(serialized_timing_cache)
        if data and not data.startswith(TIMING_MAGIC):
            return None
        cache = TimingCache(self._double, data)
        return self._double.of(self._double.trt.ITimingCache, cache)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        behind = self._double.behind(cache)
        matches = not behind._data or behind._data.startswith(self._own_timing_magic())
        if not (matches or ignore_mismatch):
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._timing_cache

    def _own_timing_magic(self) -> bytes:
        return TIMING_MAGIC + self._double.trt.__version__.encode()

    def _remember_timings(self) -> None:
        if self._timing_cache is not None:
            behind = self._double.behind(self._timing_cache)
            behind._data = behind._data or self._own_timing_magic()
            behind._data += b" built"
