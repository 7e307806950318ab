"""Spectral split: a Butterworth low band and its rest, each gated, added back (LGLDNet FAE)."""
