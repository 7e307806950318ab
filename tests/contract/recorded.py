"""What the genuine libraries said, recorded: the logs and the parser errors of real failures."""

import dataclasses
from collections.abc import Sequence

Lines = Sequence[tuple[str, str]]  # severity, text


@dataclasses.dataclass(frozen=True)
class ParserError:
    """What the parser says of a node."""

    code: str
    desc: str
    node: int = -1
    node_name: str = ""
    node_operator: str = ""


# Where a log is public, the thread stands beside it. The version numbers of plans vary.
BAD_MAGIC = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "
    "magicTagRead == kMAGIC_TAG failed.Magic tag does not match)"
)
OTHER_VERSION = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "
    "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current "
    "Version: 240, Serialized Engine Version: 239)"
)
NO_IMPLEMENTATION: Lines = (  # NVIDIA/TensorRT#4258
    ("ERROR", "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"),
    ("WARNING", "Requested amount of GPU memory (15485030400 bytes) could not be allocated. There "
     "may not be enough free memory for allocation to succeed."),
    ("ERROR", "Error Code: 9: Skipping tactic 0x0000000000000000 due to exception "
     "[tunable_graph.cpp:create:117] autotuning: User allocator error allocating 15485030400-byte "
     "buffer"),
    ("ERROR", "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any "
     "implementation for node {ForeignNode[/1/Constant_36_output_0.../1/Slice_4]}.)"),
)  # fmt: skip
SKIPPED_TACTIC: Lines = (
    ("WARNING", "UNSUPPORTED_STATE: Skipping tactic 28 due to insufficient memory on requested "
     "size of 2833252352 detected for tactic 0x0000000204040736."),
)  # fmt: skip
NO_BUILDER_RESOURCE: Lines = (  # ultralytics/ultralytics#24368
    ("ERROR", "createInferBuilder: Error Code 6: API Usage Error (Unable to load library: "
     "libnvinfer_builder_resource.so.10.3.0: libnvinfer_builder_resource.so.10.3.0: cannot open "
     "shared object file: No such file or directory)"),
)  # fmt: skip
NO_CUDA: Lines = (
    ("WARNING", "Unable to determine GPU memory usage: In getGpuMemStatsInBytes at "
     "/_src/common/extended/resources.cpp:1175"),
    ("ERROR", "createInferBuilder: Error Code 6: API Usage Error (CUDA initialization failure with "
     "error: 35. Please check your CUDA installation: http://docs.nvidia.com/cuda/cuda-installation"
     "-guide-linux/index.html In operator() at /_src/optimizer/api/builder.cpp:1360)"),
)  # fmt: skip
CARD_IS_FULL: Lines = (
    ("ERROR", "createInferBuilder: Error Code 6: API Usage Error (CUDA initialization failure with "
     "error: 2. Please check your CUDA installation)"),
)  # fmt: skip
PLUGIN_NOT_FOUND = ParserError(  # open-mmlab/mmdeploy#2758
    "UNSUPPORTED_NODE",
    'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
    12, "/backbone/HaarGate_3", "HaarGate",
)  # fmt: skip
