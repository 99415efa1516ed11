"""Every setting of a training run, with the reason for its default. Values are plain, so that a run can be stored as JSON.

A new setting is one entry here: `options` makes of it what the command line, the ComfyUI node and its help page show.
"""

# ruff: noqa: RUF009 - `option` makes dataclass fields
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import ANY_COUNT, ONE_OR_MORE, POSITIVE, SHARE, Widget, option, options_of

if TYPE_CHECKING:
    from ..sparsedict_core.config import AdapterConfig

OPTIMISERS = ("adam", "adamw", "sgd", "nadam", "radam", "rmsprop", "adafactor", "prodigy")
TIMESTEPS = ("family", "uniform", "logit-normal")
LR_SCHEDULES = ("linear", "cosine", "constant")
MOST_ATOMS_A_SITE = 8192  # their moments take 256 MB at each site, whether they are stored or not


@dataclass
class TrainConfig:
    """Settings of one run; `presets` holds the sets of them that users choose from. Raises TrainingError for bad values."""

    # -- what is trained on, and where the result goes
    images: str | Path | None = option(None, "A folder of pictures; none where the data is handed over in memory.", path=True)
    placeholder: str | None = option(None, "The word that stands for the concept; needed where images have no .txt captions.", "--word", "--placeholder")
    caption: str | None = option(None, "Caption of images without a .txt, with {word} in it: 'a picture of {word}'.", "--caption")
    resolution: int | None = option(
        None, "Pixels of the side of a square of the same area; images keep their shape.", "--resolution", bounds=ONE_OR_MORE,
        widget=Widget(7, most=4096, unset=0, note="0: the model's own."),
    )  # fmt: skip
    skip_unreadable: bool = option(False, "Train without the pictures that cannot be read, instead of naming them and stopping.", "--skip-unreadable")
    masks: str = option(
        "files", "Where the loss counts: inside mask files (a-masklabel.png, mask/a.png) where there are some; alpha: and where a picture is not "
        "transparent; off: everywhere.", "--masks", choices=("files", "alpha", "off"),
    )  # fmt: skip
    unmasked_weight: float = option(0.0, "Weight of the loss outside of a mask.", "--unmasked-weight", bounds=SHARE)
    # Off: a mirrored face or text is another one, and a crop no longer shows what its caption says.
    flip: bool = option(False, "Each picture also mirrored.")
    random_crops: int = option(0, "This many more views of each picture, of 75 to 100 % of its sides.", bounds=ANY_COUNT)
    out: str | Path = option("out/adapter.safetensors", "The adapter, .safetensors.", path=True)
    overwrite: bool = option(False, "Replace what is there.")
    # -- length and batch
    steps: int = option(
        300, "Training steps.", "--max-train-steps", "--steps", bounds=ONE_OR_MORE, widget=Widget(0, most=100_000, unset=0, note="0: by the effort.")
    )
    batch_size: int = option(
        16, "Rows of a whole step, over all processes and accumulated parts.", "--train-batch-size", "--batch-size", bounds=ONE_OR_MORE,
        widget=Widget(5, most=1024, unset=0, note="0: 16 for small models, 8 or 4 for large ones."),
    )  # fmt: skip
    gradient_accumulation: int = option(
        1, "Parts that a step's batch is worked through in, to save memory.", "--gradient-accumulation-steps", bounds=ONE_OR_MORE,
        widget=Widget(6, most=1024, unset=0, note="0: by the model's size."),
    )  # fmt: skip
    # -- optimiser: Adam (0.9, 0.99), 1e-2 with the quiet term, 5e-3 without, warm-up 20, decay over the last 30 % (docs/method.md)
    learning_rate: float | None = option(
        None, "Learning rate.", "--learning-rate", "--lr", bounds=POSITIVE,
        widget=Widget(1, 0.0, most=1.0, step=0.0001, unset=0, note="0: by the preset (0.01, without quiet samples 0.005)."),
    )  # fmt: skip
    lr_schedule: str = option("linear", "By name: linear decay at the end, cosine, constant.", "--lr-scheduler", choices=LR_SCHEDULES)
    warmup_steps: int = option(20, "Steps until the full learning rate.", "--lr-warmup-steps", bounds=ANY_COUNT)
    decay_share: float = option(0.30, "Last share of the steps, over which a linear schedule decays.", bounds=SHARE)
    optimizer: str = option("adam", f"By name: {', '.join(OPTIMISERS)}, which finds its rate itself.", "--optimizer-type", "--optimizer", choices=OPTIMISERS)
    betas: tuple[float, float] = option((0.9, 0.99), "Adam's.")
    weight_decay: float = option(0.0, "Of the optimiser.", bounds=POSITIVE)
    # Off: at the preset's rates and lengths the linear decay does the same, and there is one number less to choose.
    ema_decay: float = option(0.0, "Save the average of the steps, each counting this much less than the next (0.99 is usual); 0: the last step.", "--ema-decay", bounds=SHARE)
    max_grad_norm: float = option(1.0, "Norm that gradients are clipped to.", bounds=POSITIVE)
    # -- the adapter: r = 16, m = 128, one-sided quantile threshold (docs/method.md)
    rank: int | None = option(
        16, "Atoms are combinations of this many directions.", "--network-dim", "--rank", bounds=ONE_OR_MORE, optional=True,
        widget=Widget(3, 16, most=1024, note="0: of all, in a far larger file.")
    )
    atoms: int = option(
        128, "Atoms of each site's dictionary. More can hold more, in a larger file.", "--atoms", bounds=(1, MOST_ATOMS_A_SITE, True), widget=Widget(2, 128, least=1, most=MOST_ATOMS_A_SITE)
    )
    density: float = option(
        0.10, "Share of atoms that are active at once.", "--density", bounds=SHARE, widget=Widget(4, 0.0, most=1.0, step=0.01, unset=0, note="0: by the preset.")
    )
    # Annealed from 1 to `density`: without that drift is half as large again.
    anneal_share: float = option(0.5, "First share of the steps, over which the density falls from 1 to its aim.", bounds=SHARE)
    encoder: str = option("quantile", "How coefficients are computed: quantile, soft (with rank none: the paper's plain reading) or linear.", "--encoder")
    encoder_settings: dict[str, Any] = option(dict, "Settings of the encoder, by name.")
    sites: str = option(
        "out", "Which Linears: out, the attention outputs, as in the paper; more kinds such as out,q,k,v,ff; or all.", "--sites",
        widget=Widget(18, "out", choices=("out", "out,q,k,v", "out,q,k,v,ff", "all"), note="More sites make a larger file."),
    )  # fmt: skip
    # -- the quiet term
    # The 0.1 of the study before (docs/method.md) costs fidelity on the embedded base and buys no stillness; 0.03 is what the search chose (benchmarks/RESULTS.md).
    quiet_weight: float = option(
        0.03, "Weight of the quiet term, which keeps other prompts as they are; 0 turns it off.", "--quiet-weight", bounds=POSITIVE
    )
    quiet_share: float = option(0.25, "Share of a batch's rows that are the base's own samples for other prompts.", bounds=SHARE)
    quiet_ramp: tuple[float, float] = option((0.15, 0.45), "Shares of the steps between which the quiet term's weight rises.")
    quiet_samples: int = option(
        96, "Pictures of the base itself, made first and kept for the next run, so that other prompts stay as they are. 0: none, then other "
        "prompts change more, with few pictures far more.", "--quiet-samples", bounds=ANY_COUNT,
        widget=Widget(10, -1, most=4096, unset=-1, note="-1: by the effort."),
    )  # fmt: skip
    quiet_empty_share: float = option(0.125, "Share of those pictures that have an empty prompt.", bounds=SHARE)
    quiet_prompts: list[str] | None = option(
        None, "Prompts of those pictures, one a line, for models of one subject. Empty: a list of everyday scenes.", widget=Widget(11, "")
    )
    # Two adapters then merge better, each alone keeps less (docs/method.md).
    quiet_word_share: float = option(0.0, "Share of quiet prompts that hold a word the base never learned.", bounds=SHARE)
    quiet_words: list[str] | None = option(None, "Those words; none: the base's own spare words, without the placeholder.")
    quiet_sampling_steps: int | None = option(None, "Sampling steps of quiet samples; none: the base's own.", bounds=ONE_OR_MORE)
    cache: str | Path | None = option(None, "Folder of the quiet samples; none: one for all runs.", path=True)
    # -- nested training: a site uses only its first atoms in this share of the steps
    nested: float = option(0.25, "Share of steps that use only the first atoms, so that few carry the concept; 0 turns it off.", "--nested", bounds=SHARE)
    nested_octaves: float = option(5.0, "How few atoms those steps may use: 2 to the power of minus this.", bounds=POSITIVE)
    # -- losses
    caption_dropout: float = option(0.0, "Share of captions left empty.", "--caption-dropout-rate", bounds=SHARE)
    timestep_sampling: str = option(
        "family", "Which noise levels are trained: family, as the model was trained itself (flows logit-normal, others uniform), uniform, or logit-normal.",
        "--timestep-sampling", choices=TIMESTEPS,
    )  # fmt: skip
    timestep_shift: float | None = option(
        None, "Above 1 more steps are at strong noise, where shapes are decided, below 1 fewer. None: the family's own, by resolution where it goes by that.",
        "--timestep-shift", bounds=(0.01, 100, False),
    )  # fmt: skip
    min_snr_gamma: float | None = option(None, "Weigh noise levels by min-SNR (5 is usual).", "--min-snr-gamma", bounds=POSITIVE)
    prior_images: str | Path | None = option(None, "Folder of prior-preservation images.", "--reg-data-dir", "--prior-images", path=True)
    prior_caption: str | None = option(None, "Caption of prior-preservation images without a .txt; never the concept's own word.", "--prior-caption")
    prior_share: float = option(0.25, "Share of a batch's rows that are prior-preservation images.", bounds=SHARE)
    # -- dead atoms get a fresh random encoder row
    revive_after: int = option(100, "Steps without firing after which an atom is started anew; 0 turns it off.", bounds=ANY_COUNT)
    # -- memory
    precision: str = option(
        "fp32", "bf16 computes fp32 models in half the memory; the adapter stays fp32.", "--mixed-precision", choices=("fp32", "bf16"),
        widget=Widget(9, "fp32", note="Models in other precisions keep their own."),
    )  # fmt: skip
    gradient_checkpointing: bool = option(
        False, "Compute blocks twice and keep less in memory.", "--gradient-checkpointing",
        widget=Widget(8, "auto", choices=("auto", "on", "off"), unset="auto", note="auto: for large models."),
    )  # fmt: skip
    # -- what is shown and stored
    seed: int = option(0, "Random seed for the whole run. The same seed gives the same adapter.", "--seed", bounds=(0, 2**53, True))
    preview_prompts: list[str] = option(
        list, "Prompts that are shown while it trains, beside the base's pictures of them.", "--sample-prompt", widget=Widget(12, "", note="One a line.")
    )
    preview_every: int = option(100, "Steps between previews.", "--sample-every-n-steps", bounds=ONE_OR_MORE, widget=Widget(13, 50, least=1, most=100_000))
    checkpoint_every: int = option(
        100, "Steps between checkpoints; two are kept, in a folder beside the file.", "--save-every-n-steps", bounds=ONE_OR_MORE,
        widget=Widget(16, 100, least=1, most=100_000),
    )  # fmt: skip
    keep_checkpoints: int = option(2, "How many are kept; of a finished run one, to go on from for more steps. 0: none of a finished run.", bounds=ANY_COUNT)
    resume: bool = option(
        False, "Go on from the newest checkpoint, with the same settings, to the same result; for more steps a finished run too.", "--resume", widget=Widget(17, False, note="Of this name or a numbered one.")
    )
    save_precision: str = option("fp16", "How the adapter's weights are stored; statistics are fp32 in any case.", "--save-precision", choices=("fp16", "bf16", "fp32"))
    moments: bool = option(True, "Store what pruning by the greedy order and refit needs: 4·m² bytes a site, 64 kB for 128 atoms.", "--moments/--no-moments")
    card: bool = option(
        False, "Write a preview picture and a description beside the file, as managers of LoRAs read them; the picture is that of the first preview prompt.",
        "--card", widget=Widget(19, False),
    )  # fmt: skip
    tensorboard: str | Path | None = option(None, "Write a TensorBoard log there.", "--logging-dir", path=True)
    wandb: str | None = option(None, "Log to this project of Weights & Biases; with WANDB_MODE=offline to a folder.", "--wandb")

    def __post_init__(self) -> None:
        from ..sparsedict_core.errors import TrainingError

        self.betas, self.quiet_ramp = tuple(self.betas), tuple(self.quiet_ramp)  # type: ignore[assignment]
        for name, one in options_of(TrainConfig).items():
            if (wrong := one.wrong(getattr(self, name))) is not None:
                raise TrainingError(wrong)
        if self.batch_size % self.gradient_accumulation:
            raise TrainingError(f"batch_size {self.batch_size} is no multiple of gradient_accumulation {self.gradient_accumulation}.")
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
        """The learning rate; where none is given, what suits this kind of run (docs/method.md)."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.optimizer == "prodigy":
            return 1.0  # it finds its own
        return 1e-2 if self.quiet else 5e-3

    def adapter_config(self) -> AdapterConfig:
        """The adapter's part."""
        from ..sparsedict_core.config import AdapterConfig

        return AdapterConfig(self.encoder, self.atoms, self.rank, self.density, dict(self.encoder_settings))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = dataclasses.asdict(self)
        return {k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v for k, v in values.items()}
