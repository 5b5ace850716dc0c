"""The web page at ``/ui``: a client of the REST API like any other, through ``dualprocess``."""
