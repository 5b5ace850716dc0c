"""The service as tools for agents, over the Model Context Protocol.

It is a client of the REST API, so keys, quotas and limits are those of the API. The SDK is the
extra ``dualprocess[mcp]``, which only the modules below import.
"""
