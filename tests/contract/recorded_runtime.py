"""What the genuine libraries said of engines that did not load or run; where it was recorded."""

from tests.contract.recorded import Lines

OTHER_VERSION_10: Lines = (  # yuvraj108c/ComfyUI-Dwpose-Tensorrt#5
    ("ERROR", "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization "
     "assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: "
     "Current Version: 237, Serialized Engine Version: 239)"),
)  # fmt: skip
OTHER_VERSION_8: Lines = (  # NVIDIA/TensorRT#2072
    ("ERROR", "1: [stdArchiveReader.cpp::StdArchiveReader::40] Error Code 1: Serialization "
     "(Serialization assertion stdVersionRead == serializationVersion failed.Version tag does not "
     "match. Note: Current Version: 213, Serialized Engine Version: 205)"),
    ("ERROR", "4: [runtime.cpp::deserializeCudaEngine::50] Error Code 4: Internal Error (Engine "
     "deserialization failed.)"),
)  # fmt: skip
OTHER_GPU: Lines = (  # deepinsight/insightface#2882, TensorRT 10.8
    ("ERROR", "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan "
     "file is generated on an incompatible device, expecting compute 8.9 got compute 8.6, please "
     "rebuild.)"),
)  # fmt: skip
NO_PLUGIN: Lines = (  # laugh12321/TensorRT-YOLO#118
    ("ERROR", "IPluginRegistry::getPluginCreator: Error Code 4: API Usage Error (Cannot find "
     "plugin: EfficientIdxNMS_TRT, version: 1, namespace:.)"),
    ("ERROR", "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization "
     "assertion creator failed.Cannot deserialize plugin since corresponding IPluginCreator not "
     "found in Plugin Registry)"),
)  # fmt: skip
NO_MEMORY: Lines = (  # NVIDIA/TensorRT#3017
    ("ERROR", "1: [defaultAllocator.cpp::nvinfer1::internal::DefaultAllocator::allocate::19] Error "
     "Code 1: Cuda Runtime (out of memory)"),
    ("WARNING", "Requested amount of GPU memory (17920000000 bytes) could not be allocated. There "
     "may not be enough free memory for allocation to succeed."),
    ("ERROR", "2: [executionContext.cpp::nvinfer1::rt::ExecutionContext::ExecutionContext::470] "
     "Error Code 2: OutOfMemory (no further information)"),
)  # fmt: skip
NOT_WHILE_RECORDING: Lines = (  # NVIDIA/TensorRT#3011
    ("ERROR", "[executionContext.cpp::handleTrainStationRunnerPhase1::146] Error Code 1: Cuda "
     "Runtime (operation not permitted when stream is capturing)"),
)  # fmt: skip
