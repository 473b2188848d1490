"""What the bot and the programs agree on: names, ranges, channels by role, units, masking, and how a program is called.

These modules import only the standard library, so that a program's image needs nothing of the bot, and a process that
starts without site-packages (bot/local/supervise.py) can use them too. Importing them does nothing.
"""
