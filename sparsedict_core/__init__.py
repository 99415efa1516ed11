"""The sparse dictionary itself: layer, adapter, file, importance, selection, composition, site names.

Needs torch and safetensors only; knows no trainer, no host and no diffusers pipeline.
"""

from __future__ import annotations

from .adapter import Member, SparseAdapter
from .attachment import Attachment
from .config import AdapterConfig
from .encoders import encoder_names, get_encoder
from .file_format import SaveReport, load, read_metadata, save
from .site import SiteName, SparseSite
from .training_state import ForwardRecord, TrainingSession

__all__ = [
    "AdapterConfig",
    "Attachment",
    "ForwardRecord",
    "Member",
    "SaveReport",
    "SiteName",
    "SparseAdapter",
    "SparseSite",
    "TrainingSession",
    "encoder_names",
    "get_encoder",
    "load",
    "read_metadata",
    "save",
]
