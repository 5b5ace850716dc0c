"""What a VLM needs of a card, counted from its architecture."""
