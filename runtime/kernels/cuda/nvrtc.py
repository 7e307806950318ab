"""NVRTC, the compiler of CUDA as a library: one source in, one cubin out."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

from irstd.errors import BuildError, MissingDependency

# It knows no standard headers. These are all that the shared headers need of them on the device;
# memcpy and the mathematical functions are built in.
STANDARD_HEADERS = {
    "cstdint": """
        #pragma once
        typedef signed char int8_t; typedef unsigned char uint8_t;
        typedef short int16_t; typedef unsigned short uint16_t;
        typedef int int32_t; typedef unsigned uint32_t;
        typedef long long int64_t; typedef unsigned long long uint64_t;
        typedef unsigned long uintptr_t; typedef long intptr_t;
    """,
    "cstddef": "#pragma once\n",
    "cstring": "#pragma once\n",
    "cmath": "#pragma once\n",
}


class Nvrtc:
    """The library at a path.

    Raises:
        MissingDependency: It does not load.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise MissingDependency(f"{path}: does not load ({error}); install it again") from error
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"NVRTC {major.value}.{minor.value}"

    def cubin(self, source: Path, options: Sequence[str]) -> bytes:
        """Compile a .cu file.

        Args:
            source: The file.
            options: Of the compiler, among them `-arch=sm_*`.

        Raises:
            BuildError: It refuses the file.
        """
        program = ctypes.c_void_p()
        self._check(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            source.read_bytes(),
            str(source).encode(),
            len(STANDARD_HEADERS),
            _strings(list(STANDARD_HEADERS.values())),
            _strings(list(STANDARD_HEADERS)),
        )
        try:
            failed = self._library.nvrtcCompileProgram(program, len(options), _strings(options))
            if failed:
                log = self._text("ProgramLog", program).decode(errors="replace")
                lines = [line for line in log.splitlines() if "error" in line]
                raise BuildError(f"{self.version} refuses {source.name}: {(lines or [log])[0]}")
            return self._text("CUBIN", program)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def _check(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            reason = self._library.nvrtcGetErrorString(status).decode()
            raise BuildError(f"{function}: {reason}")


def _strings(values: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(values))(*(value.encode() for value in values))
