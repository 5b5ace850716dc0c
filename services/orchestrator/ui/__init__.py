"""The web page at ``/ui``. It uses the REST API through the ``dualprocess`` client, like others."""
