"""The seam to every model: the chat protocol, the litellm gateway, the embedded engine."""
