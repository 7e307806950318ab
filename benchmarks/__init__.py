"""Measurements that hold up: latency, paced and accuracy benchmarks, and their reports."""
