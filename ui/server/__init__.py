"""The web server: middleware, uploads, the port, MCP tools, and how the app is served."""
