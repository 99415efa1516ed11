"""Scripts that made the embedded base model; run as ``python -m sparsedict.tools.<name>``."""
