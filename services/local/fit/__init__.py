"""``dualprocess fit``: which cards hold a pair, and with which settings."""
