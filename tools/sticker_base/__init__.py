"""Trains the base of the sticker world. `python -m sparsedict.tools.sticker_base --help`."""
