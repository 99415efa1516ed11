"""LoRA files and sparse dictionaries into each other.

Reading, the update of each kind of module, and writing need torch and safetensors only, so that ComfyUI has them too;
`base`, `diffusers_names` and `original_names` ask diffusers for the names of a base model's modules.
"""
