"""Trains the embedded base. `python -m sparsedict.tools.make_base --help`."""
