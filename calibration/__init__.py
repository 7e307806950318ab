"""From frames to quantization ranges: observers, scale tables, the split of a data set."""
