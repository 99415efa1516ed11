"""Which backend opens a path: a diffusers folder by its own word, a single .safetensors by what is inside."""

from __future__ import annotations

import contextlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ...sparsedict_core.errors import SparseDictError, first_line
from . import quantised
from .diffusers_common import DiffusersBackend
from .diffusers_folder import quiet_about_dtype

#: Pipeline class in model_index.json → module and class of the backend. A new family is one line and one file.
BACKENDS = {
    "StableDiffusionPipeline": ("sd15", "SD15Backend"),
    "StableDiffusionXLPipeline": ("sdxl", "SDXLBackend"),
    "StableDiffusion3Pipeline": ("sd3", "SD3Backend"),
    "FluxPipeline": ("flux", "FluxBackend"),
    "Flux2Pipeline": ("flux2", "Flux2Backend"),
    "Flux2KleinPipeline": ("flux2", "Flux2KleinBackend"),
    "QwenImagePipeline": ("qwen_image", "QwenImageBackend"),
    "ZImagePipeline": ("z_image", "ZImageBackend"),
    "ChromaPipeline": ("chroma", "ChromaBackend"),
    "Lumina2Pipeline": ("lumina2", "Lumina2Backend"),
    "SanaPipeline": ("sana", "SanaBackend"),
    "WanPipeline": ("wan", "WanBackend"),
}

#: Single files that can be opened: pipeline class → a tensor that only its checkpoints have, and the repository that
#: has the small files (tokenizer, configs) that a single file lacks.
SINGLE_FILES = {
    "StableDiffusionXLPipeline": ("conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight", "stabilityai/stable-diffusion-xl-base-1.0"),
    "StableDiffusionPipeline": (
        "cond_stage_model.transformer.text_model.encoder.layers.0.layer_norm1.weight",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
}


def open_diffusers(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, weights: str | None = None, spread: bool = False
) -> DiffusersBackend:
    """The backend for a diffusers folder, for a single SD1.5 or SDXL .safetensors, or for a GGUF file in the folder of its model.

    `weights`: what they are made into as they are loaded, int8, fp8 or nf4; they compute in `dtype`. `spread`: over the processes. Nothing is downloaded.
    Raises SparseDictError for what is none of these, is of another family, or is incomplete.
    """
    path = Path(path)
    if not path.exists():
        raise SparseDictError(f"there is no model at {path}; give a diffusers folder or a .safetensors file.")
    file = path if path.suffix.lower() == quantised.GGUF else None
    folder = path if file is None else quantised.gguf_folder(file)
    if weights is not None and (file or not folder.is_dir()):
        raise SparseDictError(f"{path} is a single file, whose weights stay as they are; give a diffusers folder, or leave {weights} out.")
    if spread and (weights or file or not folder.is_dir()):
        raise SparseDictError("only a diffusers folder in fp32 or bf16 can be spread over processes; leave --shard out, or give such a folder.")
    with quantised.unwarned() if weights or file else contextlib.nullcontext():
        backend = backend_class(pipeline_name(folder), path).load(folder, device, dtype, file or weights, spread) if folder.is_dir() else open_file(path, device, dtype)
    backend.watch()
    return backend


def open_file(path: Path, device: str | torch.device, dtype: torch.dtype) -> DiffusersBackend:
    if path.suffix.lower() != ".safetensors":
        raise SparseDictError(f"{path} is neither a folder nor a .safetensors file; give a diffusers folder or a .safetensors file. {supported()}")
    return open_single_file(path, device, dtype)


def supported() -> str:
    """One sentence for errors."""
    return f"Supported are folders of {', '.join(BACKENDS)}, and single .safetensors files of SD1.5 and SDXL."


def pipeline_name(folder: Path) -> str:
    """`_class_name` of a diffusers folder."""
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except FileNotFoundError:
        raise SparseDictError(f"{folder} has no model_index.json, so it is no diffusers folder; give the folder that has that file. {supported()}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SparseDictError(f"{index} cannot be read ({type(error).__name__}); download the model again.") from error
    return str(name)


def backend_class(pipeline: str, path: Path | str) -> type[DiffusersBackend]:
    """The backend of a pipeline class. Raises SparseDictError for one that none is for."""
    if pipeline not in BACKENDS:
        raise SparseDictError(f"{path} is a {pipeline}, which cannot be trained here. {supported()}")
    module, name = BACKENDS[pipeline]
    found: type[DiffusersBackend] = getattr(import_module(f".{module}", __package__), name)
    return found


def open_single_file(path: Path, device: str | torch.device, dtype: torch.dtype) -> DiffusersBackend:
    """A whole checkpoint in one file: denoiser, VAE and text encoders."""
    import diffusers

    pipeline = single_file_pipeline(path)
    backend = backend_class(pipeline, path)
    config = config_folder(path, SINGLE_FILES[pipeline][1])
    options: dict[str, Any] = {**backend.load_options(path), "torch_dtype": dtype, "config": str(config), "local_files_only": True}
    try:
        with quiet_about_dtype():
            loaded = getattr(diffusers, pipeline).from_single_file(str(path), **options)
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise SparseDictError(
            f"{path} cannot be loaded with the configuration in {config} ({first_line(error)}); check that both are of the same model, or give a diffusers folder."
        ) from error
    return backend(loaded, device, dtype)


def single_file_pipeline(path: Path) -> str:
    """The pipeline class, told by tensor names; only the file's header is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            names = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise SparseDictError(f"{path} cannot be read as a .safetensors file ({first_line(error)}); download it again.") from error
    for pipeline, (telltale, _) in SINGLE_FILES.items():
        if telltale in names:
            return pipeline
    raise SparseDictError(f"{path} is not a whole SD1.5 or SDXL checkpoint (its text encoder was not found). {supported()}")


def config_folder(path: Path, repository: str) -> Path:
    """The folder with tokenizer and configs for a single file: beside it under the same name, else in the hub's cache."""
    beside = path.with_suffix("")
    if (beside / "model_index.json").exists():
        return beside
    from huggingface_hub import try_to_load_from_cache

    cached = [try_to_load_from_cache(repository, name) for name in ("model_index.json", "tokenizer/vocab.json", "unet/config.json")]
    if all(isinstance(found, str) for found in cached):
        return Path(str(cached[0])).parent
    raise SparseDictError(
        f"{path.name} lacks the tokenizer and the configuration, which a single file cannot hold; put the .json and .txt files of {repository} "
        f'into the folder {beside} (`hf download {repository} --include "*.json" "*.txt" --local-dir "{beside}"`).'
    )
