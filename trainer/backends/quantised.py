"""A base whose weights are held in fewer bits, by the quantisers that diffusers and transformers know themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ...sparsedict_core.errors import SparseDictError, first_line

#: What weights can be made into as they are loaded → the package that does it.
PACKAGES = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}
GGUF = ".gguf"


def quantisation(kind: str, component: str, text_encoders: list[str], device: torch.device, dtype: torch.dtype) -> Any:
    """diffusers' config for a pipeline whose denoiser and text encoders are loaded as `kind` and compute in `dtype`.

    Raises SparseDictError where the package or the device for it is missing.
    """
    need(PACKAGES[kind], kind)
    if kind == "nf4" and device.type != "cuda":
        raise SparseDictError(f"nf4 weights need an NVIDIA GPU, the device is {device}; use --dtype int8, which works everywhere.")
    import diffusers
    import transformers
    from diffusers.quantizers import PipelineQuantizationConfig

    def config(library: Any) -> Any:
        if kind == "nf4":
            return library.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        return library.TorchAoConfig(Int8WeightOnlyConfig() if kind == "int8" else Float8WeightOnlyConfig())

    return PipelineQuantizationConfig(quant_mapping={component: config(diffusers), **{name: config(transformers) for name in text_encoders}})


def gguf_denoiser(file: Path, kind: Any, folder: Path, component: str, dtype: torch.dtype) -> Any:
    """A denoiser of diffusers' class `kind` with the weights of a GGUF file and the configuration in a pipeline's folder."""
    need("gguf", "a GGUF file")
    from diffusers import GGUFQuantizationConfig

    config = GGUFQuantizationConfig(compute_dtype=dtype)
    try:
        return kind.from_single_file(str(file), config=str(folder), subfolder=component, quantization_config=config, torch_dtype=dtype, local_files_only=True)
    except Exception as error:  # reader and converters raise almost anything on a file of another model
        raise SparseDictError(
            f"{file} cannot be loaded as the {kind.__name__} of {folder} ({first_line(error)}); put it into the folder of its own model, or download it again."
        ) from error


def gguf_folder(file: Path) -> Path:
    """The pipeline that a GGUF file is the denoiser of: the folder that it lies in (or one above), else one beside it with its name."""
    for folder in (file.parent, file.parent.parent, file.with_suffix("")):
        if (folder / "model_index.json").exists():
            return folder
    raise SparseDictError(
        f"{file.name} holds the denoiser alone; put it into the diffusers folder of its model, which has the text encoders, the VAE and the configuration."
    )


def need(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise SparseDictError(f"{what} needs the package {package}, which is not installed; pip install {package}.")


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """diffusers warns that int8 is for bf16 alone, which was so once."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
