"""Haar gate: weights every pixel by what four undecimated Haar bands hold there (MSDA-Net)."""
