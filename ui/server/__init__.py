"""The web server: middleware, uploads, the port, MCP tools, and the launch of the app."""
