"""The command line: thin. One file a command; what a command does is done by the core, the trainer or `pictures`."""

from .app import main

__all__ = ["main"]
