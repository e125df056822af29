"""The operators that ask before they act."""
