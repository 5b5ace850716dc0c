"""Sends ended jobs to an experiment tracker. The client does this; the service knows no tracker."""
