"""LoRAs that come in: time and memory of converting one of SDXL's size; what converted, pruned, rotated and gated ones keep."""
