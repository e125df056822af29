"""A stand-in for Marquez: what of it our events meet, as its sources of version 0.51.1 have it."""
