"""Infrared small target detection: from a checkpoint to a fixed frame rate."""
