"""E7 at real widths: the layer alone, in models of random weights."""
