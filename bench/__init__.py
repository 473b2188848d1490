"""Benchmarks: `python -m bench` measures what is called fast and compares it with its goals."""
