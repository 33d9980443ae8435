"""F-codes: priority rights to buy one unit each, signed instead of stored.

A code carries its batch, its serial, the version of its key and a MAC, and one check symbol that lets a browser catch
a typo without the key. So a forged code is refused without asking any store, and a spent one is a bit in the gate.

The library is pure: no I/O, no clock, no randomness of its own. Keys, entropy and time come in as arguments, and it
knows nothing of drops, members, Redis or Postgres: `flashsale` builds on it, never the other way round.
"""
