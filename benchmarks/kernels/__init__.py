"""Each fused kernel against its peers, in turns in one run."""

# What `irstd-bench kernels --op` can be asked for.
OPERATORS = ("ms_deform_attn", "ms_deform_attn_module", "haar_gate", "spectral_split")
