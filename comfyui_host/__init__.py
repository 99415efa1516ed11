"""What the nodes and the trainer's ComfyUI backend know of the host's own models. Imports `comfy` inside functions only."""
