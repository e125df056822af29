"""Masking: what stands where personal data stood, decided by rules that a person can read and pin."""
