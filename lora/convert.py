"""A LoRA file to a dictionary for a base that diffusers knows, in memory or straight into a file."""

from __future__ import annotations

from pathlib import Path

import torch

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.file_format import SaveReport
from ..sparsedict_core.streamed_file import save_streamed
from ..sparsedict_core.text_encoders import is_text_encoder
from .base import Base
from .diffusers_names import named_by_diffusers
from .importing import RANK, ImportReport, LoraImport
from .lora_file import LoraFile
from .names import named_by_path


def lora_to_adapter(
    path: str | Path, base: Base, rank: int = RANK, dtype: torch.dtype = torch.float32, allow_part: bool = False
) -> tuple[SparseAdapter, ImportReport]:
    """The dictionary that a LoRA file is on `base`, and what became of the file. Raises FileFormatError (see `LoraImport`)."""
    work = open_import(path, base, rank, dtype, allow_part)
    return work.adapter(Path(path).stem), work.report


def convert_file(
    path: str | Path, base: Base, out: str | Path, rank: int = RANK, dtype: torch.dtype = torch.float32, allow_part: bool = False, overwrite: bool = False
) -> tuple[SaveReport, ImportReport]:
    """`lora_to_adapter` into a file, one site in memory at a time. Raises FileFormatError; the file appears whole or not at all."""
    work = open_import(path, base, rank, dtype, allow_part)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the matrices are thin: more threads wait for each other most of the time
    try:
        saved = save_streamed(out, work.sites(), lambda sites: work.finished(sites, Path(path).stem), work.aside_tensors(), dtype, overwrite)
    finally:
        torch.set_num_threads(threads)
    return saved, work.report


def open_import(path: str | Path, base: Base, rank: int = RANK, dtype: torch.dtype = torch.float32, allow_part: bool = False) -> LoraImport:
    """The file, looked at and found to fit."""
    file = LoraFile(path)
    places = base.places()
    modules = [module for name, module in file.modules.items() if not is_text_encoder(name)]
    parts = named_by_path((module.name for module in modules), places.widths)
    known = {part.module for part in parts}
    if len(known) < len(modules):
        # With all modules, as converters expect whole LoRAs; where both know a module, the converter knows better.
        asked = named_by_diffusers(file, modules, places.widths, base)
        converted = {part.module for part in asked}
        parts = [part for part in parts if part.module not in converted] + asked
    return LoraImport(file, parts, places, rank, dtype, allow_part)
