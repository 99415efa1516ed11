"""Every setting of a training run, with the reason for its default. Values are plain, so that a run can be stored as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..sparsedict_core.config import AdapterConfig
from ..sparsedict_core.errors import TrainingError


@dataclass
class TrainConfig:
    """Settings of one run; `presets` holds the sets of them that users choose from. Raises TrainingError for bad values."""

    # -- what is trained on, and where the result goes
    images: str | Path | None = None  # a folder; None where the data is handed over in memory
    caption: str | None = None  # for images without a .txt
    placeholder: str | None = None  # the word that stands for the concept; becomes the trigger word
    resolution: int | None = None  # None: the base's own
    # Off: a mirrored face or text is another one, and a crop no longer shows what its caption says.
    flip: bool = False  # each picture also mirrored
    random_crops: int = 0  # this many more views of each picture, of 75 to 100 % of its sides
    out: str | Path = "out/adapter.safetensors"
    overwrite: bool = False
    # -- the adapter (method: r = 16, m = 128, one-sided quantile threshold)
    atoms: int = 128
    rank: int | None = 16
    density: float = 0.10
    encoder: str = "quantile"
    encoder_settings: dict[str, Any] = field(default_factory=dict)
    # -- length and batch
    steps: int = 300
    batch_size: int = 16  # rows of the whole step, over all processes and micro-batches
    gradient_accumulation: int = 1
    seed: int = 0
    # -- optimiser (method: Adam (0.9, 0.99), 1e-2 with the quiet term, 5e-3 without, warm-up 20, decay over the last 30 %)
    optimizer: str = "adam"
    learning_rate: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    lr_schedule: str = "linear"
    warmup_steps: int = 20
    decay_share: float = 0.30
    max_grad_norm: float = 1.0
    # -- density: ρ from 1 to `density` over the first half; without annealing drift is half as large again
    anneal_share: float = 0.5
    # -- the quiet term
    quiet_share: float = 0.25  # rows of a batch that are the base's own samples for other prompts
    # The method's 0.1 costs fidelity on the embedded base and buys no stillness; 0.03 is what the search chose (benchmarks/RESULTS.md).
    quiet_weight: float = 0.03  # 0 turns quiet rows and their term off; other prompts are then disturbed more; how much: benchmarks
    quiet_ramp: tuple[float, float] = (0.15, 0.45)
    quiet_samples: int = 96  # over all aspect buckets; 0: none are made, and the inputs are standardised by the training images alone
    quiet_empty_share: float = 0.125
    quiet_prompts: list[str] | None = None  # None: the base's own list
    # Quiet prompts that hold a word the base never learned: two adapters then merge better, each alone keeps less (method).
    quiet_word_share: float = 0.0
    quiet_words: list[str] | None = None  # None: the base's own spare words, without the placeholder
    quiet_sampling_steps: int | None = None
    cache: str | Path | None = None  # folder of the quiet samples; None: beside `out`
    # -- nested training: a site uses only its first atoms in this share of the steps
    nested: float = 0.25
    nested_octaves: float = 5.0
    # -- losses
    min_snr_gamma: float | None = None
    prior_images: str | Path | None = None
    prior_caption: str | None = None  # for prior images without a .txt; never the concept's own word
    prior_share: float = 0.25
    caption_dropout: float = 0.0
    # -- dead atoms are started anew where they are the most use
    revive_after: int = 100  # steps without firing; 0 turns it off
    # -- memory
    precision: str = "fp32"  # or bf16 autocast
    gradient_checkpointing: bool = False
    # -- what is shown and stored
    preview_prompts: list[str] = field(default_factory=list)
    preview_every: int = 100
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    resume: bool = False
    moments: bool = True  # what pruning in the greedy order needs; 4·m² bytes a site
    tensorboard: str | Path | None = None

    def __post_init__(self) -> None:
        self.betas, self.quiet_ramp = tuple(self.betas), tuple(self.quiet_ramp)  # type: ignore[assignment]
        for name in ("steps", "batch_size", "gradient_accumulation"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; give 1 or more.")
        if self.batch_size % self.gradient_accumulation:
            raise TrainingError(f"batch_size {self.batch_size} is no multiple of gradient_accumulation {self.gradient_accumulation}.")
        for name in ("quiet_share", "prior_share", "nested", "caption_dropout", "quiet_empty_share", "quiet_word_share", "anneal_share", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; give a share from 0 to 1.")
        if self.precision not in ("fp32", "bf16"):
            raise TrainingError(f"precision is {self.precision!r}; give fp32 or bf16.")
        self.adapter_config()

    @property
    def quiet(self) -> bool:
        """Whether batches hold quiet rows."""
        return self.quiet_weight > 0 and self.quiet_share > 0 and self.quiet_samples > 0

    @property
    def rows(self) -> int:
        """Rows of a micro-batch; outside the steps too no more go through the model at once, so that what can train can also begin and end."""
        return max(1, self.batch_size // self.gradient_accumulation)

    @property
    def rate(self) -> float:
        """The learning rate; the method's for this kind of run where none is given."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-2 if self.quiet else 5e-3

    def adapter_config(self) -> AdapterConfig:
        """The adapter's part."""
        return AdapterConfig(self.encoder, self.atoms, self.rank, self.density, dict(self.encoder_settings))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = dataclasses.asdict(self)
        return {k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v for k, v in values.items()}
