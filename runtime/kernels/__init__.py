"""Fused kernels: one folder an operator, each with its definition, CPU form and CUDA form.

A definition (`reference.py`) is numpy in float64; the other forms are held against it. The plain
graph of standard operators and the torch module are in `irstd.compile.operators`.
"""
