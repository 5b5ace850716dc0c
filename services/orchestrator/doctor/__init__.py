"""Checks everything that a service needs, and says what to do about each problem."""
