"""What a model needs of a card, counted from its architecture: no weights and no GPU are needed.

``fake.py`` builds full-size networks without memory, ``meter.py`` counts what runs on them, and
``kernels.py`` makes a CPU build compute as a CUDA build does. These need torch; ``footprint.py``,
``card.py`` and ``recorded.py`` do not.
"""
