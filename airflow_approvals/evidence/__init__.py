"""Evidence for people and auditors: made from a verified ledger alone, and made again to verify it."""
