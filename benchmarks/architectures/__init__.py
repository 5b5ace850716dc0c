"""The presets' models in full size with random weights: nothing is downloaded, no file is written.

What decides shapes, and so time and memory, is as in the hub's configs. What does not (tokenizers,
samplers, ids of control tokens) comes from the tiny models of the tests.
"""
