"""Synapses among candidates, by a trained model."""
