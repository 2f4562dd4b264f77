"""The client that submits runs to a server."""
