"""Volumes by address: what an address means, who may ask for it, what a volume is, and its voxels.

Shared by the bot, which describes volumes, and by the programs that run in jobs, which read them as well. Only
`volumes.reading` imports NumPy and tensorstore. Axes are z, y, x, whatever order a volume is stored in.
"""
