"""E7 and E8 in ComfyUI and in its browser."""
