"""Each fused kernel against its peers, in turns in one run."""

# What `irstd-bench kernels --op` can be asked for.
OPERATORS = ("ms_deform_attn", "haar_gate", "spectral_split")
