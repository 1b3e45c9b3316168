"""The gateway: speaks MCP to agents, injects credentials into MCP servers, and proves that it drops them."""
