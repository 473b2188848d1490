"""The stages of a job in blocks: a first look, the blocks, and their merge."""
