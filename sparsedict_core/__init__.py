"""The sparse dictionary itself: layer, adapter, file, importance, selection, composition, site names.

Needs torch and safetensors only; knows no trainer, no host and no diffusers pipeline.
"""

from __future__ import annotations

from .adapter import Member, SparseAdapter
from .addresses import format_address, format_masks, parse_addresses
from .attached import Attached, attached
from .attachment import Attachment
from .base_check import check_base
from .compose import compose
from .config import AdapterConfig
from .encoders import encoder_names, get_encoder
from .errors import (
    AddressError,
    CompositionError,
    DataError,
    FileFormatError,
    SelectionError,
    SiteError,
    SparseDictError,
    TrainingError,
)
from .file_format import SaveReport, load, read_metadata, save
from .folding import SiteSamples, fold_into_new_atoms
from .greedy import GreedyOrder, energy_kept, greedy_order
from .importance import ImportanceStats
from .input_statistics import InputStatistics
from .prune import prune
from .selection import Selection, SelectionResult, rank_atoms, select
from .site import SiteName, SparseSite
from .site_discovery import Discovery, discover_sites
from .training_state import ForwardRecord, TrainingSession
