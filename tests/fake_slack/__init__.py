"""A Slack on loopback: as strict as the real one where we know how strict that is, stricter elsewhere."""
