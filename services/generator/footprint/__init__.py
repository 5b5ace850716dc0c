"""What a generator needs of a card, counted from its architecture."""
