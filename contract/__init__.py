"""What the bot and the programs agree on: names, ranges, channels by role, units, masking, and how a program is called.

The standard library is all that is imported here, so that a program's image needs nothing of the bot, and a process
that starts without site-packages (bot/local/supervise.py) can use it too. Importing it does nothing.
"""
