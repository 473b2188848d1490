"""What backends share whose runs and results lie in folders."""
