"""TensorRT where it is installed: its import, its log, and what runs an engine."""
