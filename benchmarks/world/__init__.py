"""E1 to E5, on the embedded base's world: what is trained and measured, its tables and its goals."""
