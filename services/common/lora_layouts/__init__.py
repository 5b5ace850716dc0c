"""How LoRA files name the layers of a denoiser: what tells one file from another by its keys alone.

Torch-free: the API reads a file's header with it, the generator the file. A layout is a table in
the file of its family; ``families`` lists them.
"""
