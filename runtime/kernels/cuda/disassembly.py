"""What the compiler made of a kernel: registers, spills, instructions of the longest path.

Registers come from ptxas, which every nvcc has. Instructions need cuobjdump and nvdisasm: of the
system's toolkit, or as `make kernel-tools` puts them into the cache.
"""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from irstd.errors import BuildError, MissingDependency
from irstd.files import cache_dir
from irstd.runtime.kernels.compiling import compile_with
from irstd.runtime.kernels.cuda.toolchain import TOOLKIT

TOOLS = ("cuobjdump", "nvdisasm")
WIDE_LOAD = re.compile(r"LDG\.\S*\b128\b")


@dataclass(frozen=True)
class Resources:
    """What a thread of a kernel takes."""

    registers: int
    spill_bytes: int  # stored plus loaded


@dataclass(frozen=True)
class Instruction:
    """One instruction of a kernel.

    Attributes:
        address: In bytes from the kernel's start.
        text: "@P0 BRA `(.L_x_3)", without the semicolon.
    """

    address: int
    text: str

    @property
    def name(self) -> str:
        """The opcode with its modifiers, without a predicate."""
        words = self.text.split()
        return words[1] if words[0].startswith("@") else words[0]

    @property
    def opcode(self) -> str:
        """The opcode alone."""
        return self.name.split(".")[0]

    @property
    def target(self) -> str | None:
        """The label that a branch goes to; where a warp splits (BRA.DIV) is not followed."""
        found = re.search(r"`\((\.L_\w+)\)", self.text)
        is_branch = self.opcode == "BRA" and not self.name.startswith("BRA.DIV")
        return found[1] if found and is_branch else None

    @property
    def is_last(self) -> bool:
        """Whether what follows is reached only by a branch."""
        return self.text.startswith("EXIT") or bool(re.match(r"BRA(\.U)? `", self.text))


@dataclass(frozen=True)
class Code:
    """A kernel's instructions in their order, and the index that each label stands before."""

    instructions: tuple[Instruction, ...]
    labels: Mapping[str, int]

    @property
    def wide_loads(self) -> int:
        """How many instructions load 16 bytes a lane from global memory."""
        return sum(bool(WIDE_LOAD.match(i.name)) for i in self.instructions)

    @functools.cached_property
    def reached(self) -> frozenset[int]:
        """Indices of the instructions that a warp whose lanes stay together may issue."""
        seen: set[int] = set()
        ahead = [0]
        while ahead:
            index = ahead.pop()
            if index in seen or index >= len(self.instructions):
                continue
            seen.add(index)
            instruction = self.instructions[index]
            if not instruction.is_last:
                ahead.append(index + 1)
            if instruction.target:
                ahead.append(self.labels[instruction.target])
        return frozenset(seen)

    def longest_path(self) -> int:
        """Return how many instructions a warp issues at most from entry to exit.

        A subroutine (the slow path of a division) counts as the one instruction that calls it.

        Raises:
            BuildError: The kernel has a loop, or a branch that is computed.
        """
        issued = dict.fromkeys(self.reached, 0)  # before an instruction, by the longest way
        longest = 0
        for index in sorted(self.reached):
            instruction = self.instructions[index]
            if instruction.opcode in ("BRX", "JMX", "JMP"):
                raise BuildError(f"{instruction.text}: where it goes is not known")
            after = issued[index] + 1
            if instruction.opcode == "EXIT":
                longest = max(longest, after)
            nexts = [] if instruction.is_last else [index + 1]
            if instruction.target:
                nexts.append(self.labels[instruction.target])
            if any(following <= index for following in nexts):
                raise BuildError(f"{instruction.text}: a loop; wanted straight code")
            for following in nexts:
                issued[following] = max(issued[following], after)
        return longest


def resources(ptxas: str) -> dict[tuple[str, int], Resources]:
    """Read what `ptxas -v` says.

    Returns:
        By kernel and architecture (87 for sm_87).
    """
    found = {}
    for part in ptxas.split("Compiling entry function ")[1:]:
        head = re.match(r"'(\w+)' for 'sm_(\d+)\w*'", part)
        registers = re.search(r"Used (\d+) registers", part)
        spills = re.findall(r"(\d+) bytes spill", part)
        if head and registers:
            key = head[1], int(head[2])
            found[key] = Resources(int(registers[1]), sum(map(int, spills)))
    return found


@functools.cache
def disassemble(fatbin: Path, architecture: int) -> dict[str, Code]:
    """Disassemble the kernels of a fat binary for one architecture.

    Raises:
        MissingDependency: No cuobjdump or nvdisasm.
        BuildError: They refuse the file, or it has no such architecture.
    """
    cuobjdump, nvdisasm = (find_tool(name) for name in TOOLS)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [cuobjdump, "-xelf", f"sm_{architecture}", fatbin.resolve()],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        cubins = list(Path(folder).glob("*.cubin"))
        if done.returncode or len(cubins) != 1:
            raise BuildError(
                f"{fatbin}: no one binary for sm_{architecture} ({done.stderr.strip()})"
            )
        return parse(compile_with([str(nvdisasm), "-c", str(cubins[0])]))


def parse(listing: str) -> dict[str, Code]:
    """Read what `nvdisasm -c` prints: kernels by name."""
    kernels = {}
    for part in re.split(r"^\.text\.", listing, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition(":")
        instructions: list[Instruction] = []
        labels: dict[str, int] = {}
        for line in body.splitlines():
            if line.startswith("//---"):  # the next section
                break
            if label := re.match(r"(\.L_\w+):", line):
                labels[label[1]] = len(instructions)
            elif found := re.match(r"\s+/\*([0-9a-f]+)\*/\s+(.*?)\s*;", line):
                instructions.append(Instruction(int(found[1], 16), found[2]))
        kernels[name] = Code(tuple(instructions), labels)
    return kernels


def find_tool(name: str) -> Path:
    """Return cuobjdump or nvdisasm.

    Raises:
        MissingDependency: It is neither in PATH, nor in /usr/local/cuda, nor in the cache.
    """
    if found := shutil.which(name):
        return Path(found)
    for folder in (TOOLKIT / "bin", tools_dir()):
        if os.access(folder / name, os.X_OK):
            return folder / name
    raise MissingDependency(
        f"no {name} in PATH, /usr/local/cuda or {tools_dir()}; make kernel-tools"
    )


def tools_dir() -> Path:
    """Return the folder of the cache that `make kernel-tools` fills."""
    return cache_dir() / "cuda-tools"
