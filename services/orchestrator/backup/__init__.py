"""Copies Redis's records and the files that they name into a folder, and restores them.

A copy of ``dump.rdb`` would not do: a Redis with an append-only file reads only that file when it
starts, and makes an empty one if it is missing.
"""
