// Stands in for CUDA's header of the same name, which nvcc includes by itself.
#pragma once
