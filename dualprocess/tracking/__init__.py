"""Ended jobs, told to an experiment tracker by whoever runs the client; the service knows none."""
