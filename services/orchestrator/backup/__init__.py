"""A copy of Redis's records and of the files that they name, and the way back.

``dump.rdb`` is no such copy: a Redis that keeps an append-only file reads that one alone when it
starts, and makes an empty one where it is missing.
"""
