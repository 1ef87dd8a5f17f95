"""The graphs as a service: HTTP with server-sent events, and MCP over stdio. Needs the extra `serve`."""

from coa.serve.app import create_app
from coa.serve.limits import ServeLimits

__all__ = ["ServeLimits", "create_app"]
