"""Datasets outside the database: read once to say what they are, published only if they still are that."""
