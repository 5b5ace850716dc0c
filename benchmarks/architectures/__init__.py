"""The presets' models in full size with random weights. Nothing is downloaded, no file is written.

All settings that decide shapes, and so time and memory, are those of the hub's configs. Tokenizers,
samplers and ids of control tokens come from the tiny models of the tests.
"""
