"""E6, on handwritten digits."""
