"""Looks at everything that a service needs, and says what to do about what it finds."""
