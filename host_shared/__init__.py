"""What the hosts share: ComfyUI's nodes and the web UIs stand on it, and it knows none of them."""
