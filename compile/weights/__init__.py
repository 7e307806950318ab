"""Shipped weights: for each network its safetensors, plain ONNX and model card."""
