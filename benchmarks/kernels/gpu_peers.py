"""What the fused kernels are timed against on a GPU: torch, and two kernels of others.

None of it is part of this project. torch is used if it is installed; the original deformable-
attention kernel is taken from mmcv or compiled from a folder of its sources, and FlashDeformAttn
comes from its package `DCNv4`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irstd.benchmarks.kernels.cases import Array, Case
from irstd.benchmarks.kernels.cpu_peers import torch_function
from irstd.benchmarks.kernels.gpu_timing import Run
from irstd.errors import BuildError, MissingDependency

_IM2COL_STEP = 64
# Of FlashDeformAttn, chosen as its own Python does: channels of a thread, most threads of a block.
_FLASH_STRIDE, _FLASH_THREADS, _FLASH_QUERIES = 8, 512, 64
_FLASH_POINTS = (4, 8)


@dataclass(frozen=True)
class Candidate:
    """Something that computes a case.

    Attributes:
        name: In the table.
        run: Puts one call into the stream.
        result: Waits, and returns what the last call computed, in the operator's shape.
    """

    name: str
    run: Run
    result: Callable[[], Array]


Maker = Callable[[Case, Mapping[str, Array]], Candidate]


class TorchPeers:
    """The operators in torch, on a stream of somebody else's.

    Args:
        stream: Handle of the CUDA stream to run in.
        original_source: Folder of the original kernel's sources (`vision.cpp` and below); None asks
            mmcv for its build of it.

    Raises:
        MissingDependency: No torch, or none that can use the GPU.
    """

    def __init__(self, stream: int, original_source: Path | None = None) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingDependency("torch is not installed; pip install torch") from error
        if not torch.cuda.is_available():
            raise MissingDependency(f"torch {torch.__version__} finds no GPU")
        self.versions = {"torch": str(torch.__version__), "torch cuda": str(torch.version.cuda)}
        self._torch = torch
        self._stream: Any = torch.cuda.ExternalStream(stream)  # type: ignore[no-untyped-call]
        self._original_source = original_source

    def makers(self, case: Case) -> Iterator[tuple[str, Maker]]:
        """Yield the name and the maker of each peer that has the operator."""
        if case.precision == "uint8":
            return
        yield "torch", self.eager
        yield "torch.compile", self.compiled
        if case.op == "ms_deform_attn":
            yield "original", self.original
            yield "original+softmax", self.original_whole
            if case.precision == "float16":
                yield "flash", self.flash

    def eager(self, case: Case, arrays: Mapping[str, Array]) -> Candidate:
        """Plain operators, one after the other."""
        return self._plain("torch", lambda function: function, case, arrays)

    def compiled(self, case: Case, arrays: Mapping[str, Array]) -> Candidate:
        """Plain operators, fused by torch as it can."""
        return self._plain("torch.compile", self._torch.compile, case, arrays)

    def original(self, case: Case, arrays: Mapping[str, Array]) -> Candidate:
        """The original kernel alone: locations and softmax are there before the clock starts."""
        forward = self._original_forward()
        tensors = self._tensors(arrays)
        with self._torch.cuda.stream(self._stream):
            prepared = [part.contiguous() for part in _locations_and_weights(case, tensors)]
        shapes, starts = self._levels(case)

        def call() -> Any:
            return forward(tensors["value"], shapes, starts, *prepared, _IM2COL_STEP)

        return self._timed("original", call)

    def original_whole(self, case: Case, arrays: Mapping[str, Array]) -> Candidate:
        """The original kernel after softmax and locations, which the fused one does itself."""
        forward = self._original_forward()
        tensors = self._tensors(arrays)
        shapes, starts = self._levels(case)

        def call() -> Any:
            locations, weights = _locations_and_weights(case, tensors)
            return forward(
                tensors["value"], shapes, starts, locations.contiguous(), weights, _IM2COL_STEP
            )

        return self._timed("original+softmax", call)

    def flash(self, case: Case, arrays: Mapping[str, Array]) -> Candidate:
        """FlashDeformAttn, which does the softmax itself; locations are there before."""
        try:
            from DCNv4 import ext
        except ImportError as error:
            raise MissingDependency("DCNv4 is not installed") from error
        images, heads, d_head, points = case.size
        if points not in _FLASH_POINTS or d_head % _FLASH_STRIDE:
            raise MissingDependency(
                f"FlashDeformAttn takes no {points} points of {d_head} channels"
            )
        tensors = self._tensors(arrays)
        with self._torch.cuda.stream(self._stream):
            locations, _ = _locations_and_weights(case, tensors)
            packed = self._torch.cat(
                [locations.flatten(-3).half(), tensors["logits"].flatten(-2)], -1
            ).contiguous()
        shapes, starts = self._levels(case)
        queries = case.query_hw[0] * case.query_hw[1] * images
        threads = flash_threads(queries, heads * d_head // _FLASH_STRIDE)

        def call() -> Any:
            return ext.flash_deform_attn_forward(
                tensors["value"], shapes, starts, packed,
                _IM2COL_STEP, points, _FLASH_STRIDE, threads,
            )  # fmt: skip

        return self._timed("flash", call)

    def _plain(
        self,
        name: str,
        prepare: Callable[[Callable[..., Any]], Callable[..., Any]],
        case: Case,
        arrays: Mapping[str, Array],
    ) -> Candidate:
        tensors, function = self._tensors(arrays), prepare(plain_function(case))
        return self._timed(name, lambda: function(**tensors))

    def _timed(self, name: str, call: Callable[[], Any]) -> Candidate:
        torch, stream = self._torch, self._stream
        held: list[Any] = []

        def run() -> None:
            with torch.no_grad(), torch.cuda.stream(stream):
                held[:] = [call()]

        def result() -> Array:
            stream.synchronize()
            array: Array = held[0].float().cpu().numpy()
            return array

        return Candidate(name, run, result)

    def _tensors(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        tensors = {
            name: self._torch.from_numpy(np.array(array)).cuda() for name, array in arrays.items()
        }
        self._torch.cuda.synchronize()
        return tensors

    def _levels(self, case: Case) -> tuple[Any, Any]:
        sizes = [height * width for height, width in case.level_hw]
        starts = [sum(sizes[:level]) for level in range(len(sizes))]
        make = self._torch.tensor
        return make(case.level_hw, device="cuda"), make(starts, device="cuda")

    def _original_forward(self) -> Callable[..., Any]:
        if self._original_source is None:
            try:
                from mmcv.ops.multi_scale_deform_attn import ext_module
            except ImportError as error:
                raise MissingDependency(
                    "mmcv is not installed; or pass --original-source"
                ) from error
            return lambda value, shapes, starts, locations, weights, step: (
                ext_module.ms_deform_attn_forward(
                    value, shapes, starts, locations, weights, im2col_step=step
                )
            )
        return _compiled_original(self._original_source)


_BUILT: dict[Path, Callable[..., Any]] = {}


def _compiled_original(folder: Path) -> Callable[..., Any]:
    """Compile the original kernel's sources with torch's own tool, once in a process."""
    from torch.utils import cpp_extension

    if folder not in _BUILT:
        sources = sorted(str(path) for path in folder.rglob("*") if path.suffix in (".cpp", ".cu"))
        if not sources:
            raise MissingDependency(f"{folder}: holds no .cpp and .cu files")
        try:
            module = cpp_extension.load(
                "irstd_original_ms_deform_attn",
                sources,
                extra_include_paths=[str(folder)],
                extra_cflags=["-DWITH_CUDA"],
                extra_cuda_cflags=["-DWITH_CUDA", "-O3"],
            )
        except (RuntimeError, OSError) as error:
            raise BuildError(f"{folder}: the original kernel does not compile: {error}") from error
        _BUILT[folder] = module.ms_deform_attn_forward
    return _BUILT[folder]


def flash_threads(queries: int, lanes: int) -> int:
    """Return the threads of a block: as many queries as divide all of them and fit."""
    fitting = [
        m for m in range(1, _FLASH_QUERIES + 1) if queries % m == 0 and m * lanes <= _FLASH_THREADS
    ]
    return max(fitting, default=1) * lanes


def plain_function(case: Case) -> Callable[..., Any]:
    """Return the plain torch operators of a case in its precision, for tensors by name.

    The spectral split in float32: torch transforms halves only where both sides are powers of two.
    """
    function = torch_function(case)
    if case.op == "spectral_split":
        return lambda x, **others: function(x.float(), **others).to(x.dtype)

    def run(**tensors: Any) -> Any:
        dtype = next(iter(tensors.values())).dtype
        return function(**{name: tensor.to(dtype) for name, tensor in tensors.items()})

    return run


def _locations_and_weights(case: Case, tensors: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return locations in [0, 1] and the softmax, both in the values' precision."""
    import torch

    offsets, logits = tensors["offsets"], tensors["logits"]
    reference = tensors.get("reference_points")
    if reference is None:
        height, width = case.query_hw
        y = (torch.arange(height, device=offsets.device) + 0.5) / height
        x = (torch.arange(width, device=offsets.device) + 0.5) / width
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        reference = torch.stack([columns, rows], -1).reshape(1, -1, 2)
    sizes = torch.tensor([(w, h) for h, w in case.level_hw], device=offsets.device)
    moved = offsets.float() / sizes[:, None]
    locations = reference[:, :, None, None, None] + moved
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    return locations.to(offsets.dtype), weights
