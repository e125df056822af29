"""What custom tasks ask with."""
