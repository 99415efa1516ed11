"""Measures on the embedded base's world, where the renderer gives exact answers. Shared by the demo and the benchmarks."""
