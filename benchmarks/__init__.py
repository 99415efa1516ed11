"""Evidence: what a sparse dictionary buys over LoRA and its kin, and what it costs. Every figure comes from a result file made by a command."""
