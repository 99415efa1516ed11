"""What the long run tries (`dev.py soak`): each part returns one row of its table, which docs/reliability.md shows."""
