"""AUTOMATIC1111 and Forge: the same files in the web UIs. Imports the host's `modules` inside functions only."""
