"""What a benchmark runs in processes of its own, so that nothing measured shares an interpreter with its measuring."""
