"""What the compiler made of the kernels, for every architecture: registers, spills, instructions.

Registers and spills need nvcc alone; instructions the disassembler of `make kernel-tools`.
"""

import dataclasses

import pytest

from irstd.errors import BuildError, MissingDependency
from irstd.runtime.kernels.cuda import disassembly
from irstd.runtime.kernels.cuda.compiler import ARCHITECTURES, FOLDER, build_fatbin
from irstd.runtime.kernels.cuda.disassembly import Resources, disassemble, find_tool, parse

OPERATORS = sorted(path.stem for path in FOLDER.glob("*/*.cu") if path.stem == path.parent.name)


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a kernel may take.

    `instructions` is for a warp's way through the kernel at its longest. In half and u8 with d_head
    32 a warp is one query of 8 heads; in float32 it is half of one.
    """

    op: str
    kernel: str
    registers: int
    wide_loads: int = 0
    instructions: int | None = None

    def __str__(self):
        return f"{self.op} {self.kernel}"


def attention(kernel, *bounds):
    return Gate("ms_deform_attn", f"irstd_ms_deform_attn_{kernel}_p4", *bounds)


# kernels.md section 6: 600 and 720 for 3 and 4 levels in half, with 48 and 56 registers. The others
# are what they take now and a twentieth more. Wide loads: the four corners of 4 points a level in
# half, twice that in float32, and half of it in u8, where horizontal neighbours are joined.
GATES = [
    attention("f16_d32_l2", 48, 32, 440),
    attention("f16_d32_l3", 48, 48, 600),
    attention("f16_d32_l4", 56, 64, 720),
    attention("u8_d32_l2", 48, 16, 410),
    attention("u8_d32_l3", 48, 24, 550),
    attention("u8_d32_l4", 56, 32, 690),
    attention("f32_d32_l2", 64, 64, 560),
    attention("f32_d32_l3", 64, 96, 800),
    attention("f32_d32_l4", 64, 128, 1015),
    # 640 threads on a multiprocessor of 64 Ki registers.
    Gate("haar_gate", "irstd_haar_gate_f16", 96, 13),
    Gate("haar_gate", "irstd_haar_gate_f32", 96, 13),
    Gate("spectral_split", "irstd_spectral_split_gate_f16", 96, 12),
    Gate("spectral_split", "irstd_spectral_split_gate_f32", 96, 12),
    Gate("spectral_split", "irstd_spectral_split_whole_f16", 64, 1),
    Gate("spectral_split", "irstd_spectral_split_columns_f16", 64, 2),
]


@pytest.fixture
def require_sass(require):
    try:
        for name in disassembly.TOOLS:
            find_tool(name)
    except MissingDependency as error:
        require("sass", str(error))


def resources_of(op):
    return disassembly.resources(build_fatbin(op).with_suffix(".ptxas").read_text())


@pytest.mark.parametrize("op", OPERATORS)
def test_no_kernel_spills_on_any_architecture(require_nvcc, op):
    resources = resources_of(op)
    assert {architecture for _, architecture in resources} == set(ARCHITECTURES)
    assert {key: r for key, r in resources.items() if r.spill_bytes} == {}


@pytest.mark.parametrize("gate", GATES, ids=str)
def test_registers(require_nvcc, gate):
    resources = resources_of(gate.op)
    taken = {a: resources[gate.kernel, a].registers for a in ARCHITECTURES}
    assert {a: count for a, count in taken.items() if count > gate.registers} == {}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("gate", GATES, ids=str)
def test_instructions(require_nvcc, require_sass, gate, architecture):
    code = disassemble(build_fatbin(gate.op), architecture)[gate.kernel]
    assert code.wide_loads >= gate.wide_loads
    if gate.instructions is not None:
        assert code.longest_path() <= gate.instructions


LISTING = """
\t.section\t.text.first,"ax",@progbits
.text.first:
        /*0000*/                   ISETP.NE.U32.AND P0, PT, RZ, UR2, PT ;
        /*0010*/               @P0 BRA `(.L_x_1) ;
        /*0020*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0030*/                   LDG.E.64 R4, [R2.64] ;
.L_x_1:
        /*0040*/              @!P1 EXIT ;
        /*0050*/                   BRA.DIV ~URZ, `(.L_x_3) ;
        /*0060*/                   STG.E.128 [R2.64], R4 ;
        /*0070*/                   EXIT ;
.L_x_2:
        /*0080*/                   BRA `(.L_x_2);
.L_x_3:
        /*0090*/                   BRA `(.L_x_1) ;
.L_x_4:

//--------------------- .text.second --------------------------
.text.second:
.L_x_5:
        /*0000*/                   IADD3 R0, R0, 0x1, RZ ;
        /*0010*/               @P0 BRA `(.L_x_5) ;
        /*0020*/                   BRX R2 -0x10 ;
"""


def test_longest_path_of_straight_code():
    first = parse(LISTING)["first"]
    assert first.longest_path() == 8
    assert first.wide_loads == 1
    assert first.reached == frozenset(range(8))  # neither the trap nor where lanes diverge


def test_loops_and_computed_branches_have_no_longest_path():
    second = parse(LISTING)["second"]
    with pytest.raises(BuildError, match="a loop; wanted straight code"):
        second.longest_path()
    straight = parse(LISTING.replace("@P0 BRA `(.L_x_5)", "NOP"))["second"]
    with pytest.raises(BuildError, match="where it goes is not known"):
        straight.longest_path()


def test_resources_by_kernel_and_architecture():
    said = """
ptxas info    : Compiling entry function 'first' for 'sm_86'
    64 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 71 registers, used 1 barriers, 64 bytes cumulative stack size
ptxas info    : Compiling entry function 'first' for 'sm_120'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, 400 bytes cmem[0]
"""
    wanted = {("first", 86): Resources(71, 12), ("first", 120): Resources(40, 0)}
    assert disassembly.resources(said) == wanted


def test_missing_tools_are_told_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path))
    monkeypatch.setattr(disassembly, "TOOLKIT", tmp_path)
    with pytest.raises(MissingDependency, match=r"no nvdisasm in .*; make kernel-tools"):
        find_tool("nvdisasm")


def test_a_file_that_is_none_is_told(require_sass, tmp_path):
    path = tmp_path / "x.fatbin"
    path.write_text("nothing")
    with pytest.raises(BuildError, match="no one binary for sm_87"):
        disassemble(path, 87)
