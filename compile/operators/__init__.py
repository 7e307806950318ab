"""The fused operators as torch modules and as plain graphs of standard operators."""
