"""Benchmarks: `python -m bench` measures speed, memory and quality, and compares them with their goals."""
