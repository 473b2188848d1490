"""Synapses without training."""
