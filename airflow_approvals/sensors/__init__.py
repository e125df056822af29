"""The sensor that waits for a request opened elsewhere."""
