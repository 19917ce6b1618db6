"""A server with a web page and an HTTP API for finished runs, and its Python client."""
