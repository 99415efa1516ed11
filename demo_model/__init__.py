"""The embedded base model: a small text-to-image diffusion transformer, its renderer and its reader.

It may not know the adapter, the trainer or any host.
"""
