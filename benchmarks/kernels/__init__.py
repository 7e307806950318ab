"""Each fused kernel against its peers, in turns in one run."""
