"""Trains the base of the sticker world. `python -m sparsedict.tools.make_base --help`."""
