"""A LoRA file as modules: which tensors belong together, of which kind, under the name that the file gives their place.

Knows how the trainers' files spell down, up and alpha; knows nothing of the base model that the names belong to.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.file_container import STORED, Entry, open_container
from ..sparsedict_core.regular_file import read_regular

# `….lora_down.weight`, `….lora_A.weight`, `…_lora.down.weight`, `….lora.down.weight`, `….lora_linear_layer.down.weight`,
# `….lora_A.default.weight`, and each with up or B.
_FACTOR = re.compile(r"(?P<name>.+?)[._]lora(?P<number>\d?)(?:_linear_layer)?[._](?P<side>down|up|mid|A|B)(?:\.default)?(?:\.weight)?")
_SIDES = {"down": "down", "A": "down", "up": "up", "B": "up", "mid": "mid"}
_PART = re.compile(r"(?P<name>.+)\.(?P<part>hada_[wt][12](?:_[ab])?|lokr_(?:w[12](?:_[ab])?|t2)|diff|alpha|dora_scale|lora_magnitude_vector)(?:\.weight)?")
_FOREIGN = {"boft": "BOFT", "oft_": "OFT", ".a1.": "GLoRA", ".b1.": "GLoRA", ".on_input": "(IA)³", "vera_": "VeRA", "w_norm": "norm"}
#: Beginnings of a LoRA's weights that peft takes out of the base's.
_MOVES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_NUMBERS = {
    **{name: dtype for name, dtype in STORED.items() if dtype.is_floating_point}, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


@dataclass
class LoraModule:
    """The tensors of one module, by what they are: down, up, mid; hada_…; lokr_…; diff; dora. `keys` are the file's own."""

    name: str
    keys: dict[str, str] = field(default_factory=dict)
    alpha: float | None = None

    @property
    def kind(self) -> str:
        """lora, loha, lokr or full; `+dora` where there is a magnitude too."""
        parts = set(self.keys)
        kind = "lora" if "down" in parts else "loha" if any(part.startswith("hada") for part in parts) else "full" if "diff" in parts else "lokr"
        return f"{kind}+dora" if "dora" in parts else kind

    @property
    def unscaled(self) -> bool:
        """Nothing is multiplied by its alpha, which LyCORIS may write as an infinite one."""
        return "diff" in self.keys or {"lokr_w1", "lokr_w2"} <= set(self.keys)


class LoraFile:
    """An open file. `modules` by name; `others` are the keys that belong to none: they can only be kept."""

    def __init__(self, path: str | Path) -> None:
        """Reads names, shapes and alphas only. Raises FileFormatError, one sentence for each thing that is no LoRA."""
        self.path = _tensor_file(Path(path))
        with open_container(self.path) as file:
            self._entries: dict[str, Entry] = file.entries
            self.text: dict[str, str] = file.fields
            self._data = self.path.stat().st_size - file.size
        self.modules: dict[str, LoraModule] = {}
        self.others: list[str] = []
        alphas: dict[str, str] = {}
        for key in self._entries:
            self._sort(key, alphas)
        for name in [name for name, module in self.modules.items() if not set(module.keys) - {"dora"}]:
            self.others += self.modules.pop(name).keys.values()
        if not self.modules:
            raise FileFormatError(f"{self.path} {self._what_it_is()}; give a LoRA.")
        for name, key in alphas.items():
            if name in self.modules:
                self.modules[name].alpha = 1.0 if self.modules[name].unscaled else self._alpha(key)
            else:
                self.others.append(key)
        for module in self.modules.values():
            self._check(module)
        self._settings = _peft_settings(self.path, self.text)

    def _sort(self, key: str, alphas: dict[str, str]) -> None:
        factor, part = _FACTOR.fullmatch(key), _PART.fullmatch(key)
        if factor is not None:
            # xlabs has two LoRAs at one place: qkv_lora1, qkv_lora2.
            name = factor["name"] + ((factor["number"] and f"_lora{factor['number']}") or "")
            self.modules.setdefault(name, LoraModule(name)).keys[_SIDES[factor["side"]]] = key
        elif part is not None and part["part"] == "alpha":
            alphas[part["name"]] = key
        elif part is not None and not (part["part"] == "diff" and len(self.shape(key)) < 2):  # a norm's vector is no Linear
            what = "dora" if part["part"] in ("dora_scale", "lora_magnitude_vector") else part["part"]
            self.modules.setdefault(part["name"], LoraModule(part["name"])).keys[what] = key
        else:
            self.others.append(key)

    # -- values ---------------------------------------------------------------------------------------------

    def shape(self, key: str) -> tuple[int, ...]:
        return self._entries[key].shape

    def read(self, key: str) -> Tensor:
        """As it is in the file; nothing of the file stays in memory but this."""
        entry = self._entries[key]
        with self.path.open("rb") as stream:
            stream.seek(self._data + entry.start)
            data = bytearray(stream.read(entry.end - entry.start))
        if len(data) != entry.end - entry.start:
            raise FileFormatError(f"{self.path} became shorter while it was read; wait until it is written, or copy it again.")
        dtype = _NUMBERS.get(entry.dtype) or STORED.get(entry.dtype)
        if dtype is None:
            raise FileFormatError(f"{self.path}: {key} is stored as {entry.dtype}, which cannot be read; save the LoRA as fp16, bf16 or fp32.")
        return torch.frombuffer(data, dtype=dtype).reshape(entry.shape) if data else torch.empty(entry.shape, dtype=dtype)

    def numbers(self, module: LoraModule, part: str) -> Tensor | None:
        """In float64. Raises FileFormatError for values that are not finite."""
        key = module.keys.get(part)
        if key is None:
            return None
        tensor = self.read(key).to(torch.float64)
        if not bool(torch.isfinite(tensor).all()):
            raise FileFormatError(f"{self.path}: {key} has values that are not finite; the LoRA is damaged, or its training went wrong.")
        return tensor

    def scale(self, module: LoraModule, rank: int) -> float:
        """What up·down is multiplied by: alpha / rank, or 1 where no alpha is known, as all loaders have it."""
        if module.alpha is not None:
            return module.alpha / rank
        return _peft_scale(self.path, self._settings, module.name, rank)

    def own_scale(self, module: LoraModule) -> float:
        """The part of its scale that no tensor of a LoRA module tells; 1 where an alpha does."""
        return 1.0 if module.alpha is not None else self.scale(module, self.shape(module.keys["down"])[0])

    def without_alpha(self, module: LoraModule) -> bool:
        """Whether neither the module nor settings say what to scale by."""
        return module.alpha is None and not self._settings and not module.unscaled

    def keys_of(self, name: str) -> list[str]:
        """All of a module's keys in the file, its alpha too."""
        return [*self.modules[name].keys.values(), *([f"{name}.alpha"] if self.modules[name].alpha is not None else [])]

    @property
    def trigger_words(self) -> list[str]:
        """As the trainer has noted them in the fields that others read too."""
        phrase = self.text.get("modelspec.trigger_phrase", "")
        return [word.strip() for word in phrase.split(",") if word.strip()]

    # -- what is wrong --------------------------------------------------------------------------------------

    def _alpha(self, key: str) -> float:
        if math.prod(self.shape(key)) != 1:
            raise FileFormatError(f"{self.path}: {key} has shape {self.shape(key)}, an alpha is one number; the LoRA is damaged.")
        value = float(self.read(key).double())
        if not math.isfinite(value):
            raise FileFormatError(f"{self.path}: {key} is {value}, an alpha must be a finite number; the LoRA is damaged.")
        if value == 0:
            raise FileFormatError(f"{self.path}: {key} is 0, so this LoRA changes nothing there; it was saved wrongly, train or download it again.")
        return value

    def _check(self, module: LoraModule) -> None:
        for key in module.keys.values():
            kind = self._entries[key].dtype
            if kind not in _NUMBERS:
                raise FileFormatError(f"{self.path}: {key} is stored as {kind}; a LoRA's numbers must be of a floating type.")
            if 0 in self.shape(key):
                raise FileFormatError(f"{self.path}: {key} has shape {self.shape(key)}: a LoRA of rank 0 holds nothing; train or download it again.")
            if not 2 <= len(self.shape(key)) <= 5 and key != module.keys.get("dora"):
                raise FileFormatError(f"{self.path}: {key} has shape {self.shape(key)}, which no part of a LoRA has; the LoRA is damaged.")
        parts = module.keys
        for half, other in _HALVES:
            if half in parts and other not in parts:
                raise FileFormatError(f"{self.path}: {parts[half]} has no {other} beside it; the file was cut, download it again.")
        if module.kind.startswith("lokr"):
            for side in ("lokr_w1", "lokr_w2"):
                if side not in parts and f"{side}_a" not in parts:
                    raise FileFormatError(f"{self.path}: {next(iter(parts.values()))} has no {side} beside it; the file was cut, download it again.")
        if "down" in parts:
            chain = [parts[part] for part in ("up", "mid", "down") if part in parts]
            for left, right in itertools.pairwise(chain):
                if self.shape(left)[1] != self.shape(right)[0]:
                    raise FileFormatError(f"{self.path}: {right} is {self.shape(right)} and {left} is {self.shape(left)}, which do not multiply; the LoRA is damaged.")

    def _what_it_is(self) -> str:
        keys = list(self._entries)
        if self.text.get("format") == "sparse_dict":
            return "is a sparse dictionary already"
        foreign = next((name for mark, name in _FOREIGN.items() if any(mark in key for key in keys)), None)
        if foreign is not None:
            return f"holds {foreign}, which does not add to the output as a LoRA does"
        if any(key.startswith(("emb_params", "string_to_param", "clip_l", "clip_g", "<")) or key == "emb_params" for key in keys) and len(keys) <= 8:
            return "is a textual inversion: a word's embedding"
        if any(key.endswith(".weight") for key in keys):
            return f"holds whole weights ({len(keys)} tensors, such as {keys[0]}): it is a checkpoint"
        return f"holds no LoRA: none of its {len(keys)} tensors is one's down or up side" + (f", the first is {keys[0]}" if keys else "")


#: The first needs the second.
_HALVES = (
    ("up", "down"), ("down", "up"), ("mid", "down"),
    *((f"hada_w{i}_{a}", f"hada_w{j}_{b}") for i, j in ((1, 2), (2, 1)) for a in "ab" for b in "ab"), ("hada_t1", "hada_t2"), ("hada_t2", "hada_t1"),
    *((f"lokr_w{i}_{a}", f"lokr_w{i}_{b}") for i in (1, 2) for a, b in ("ab", "ba")),
)  # fmt: skip


def _tensor_file(path: Path) -> Path:
    """The file in a folder that peft or diffusers has written."""
    if not path.is_dir():
        return path
    for name in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        if (path / name).exists():
            return path / name
    raise FileFormatError(f"{path} is a folder without adapter_model.safetensors or pytorch_lora_weights.safetensors; give the LoRA's file.")


def _peft_settings(path: Path, text: dict[str, str]) -> dict[str, Any]:
    """What peft or diffusers have noted of the LoRA, in the file or beside it; empty where they have not."""
    beside = path.with_name("adapter_config.json")
    try:
        settings = {}
        if "lora_adapter_metadata" in text:
            settings = json.loads(text["lora_adapter_metadata"])
        elif path.name == "adapter_model.safetensors" and beside.exists():
            settings = json.loads(read_regular(beside))
        if not isinstance(settings, dict):
            raise ValueError("no settings by name")
        moved = next((f"{key} {value!r:.40}" for key, value in settings.items() if key.endswith("init_lora_weights") and str(value).lower().startswith(_MOVES_THE_BASE)), None)
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: its peft settings cannot be read ({error}), and without them its scale is unknown; save the LoRA again.") from error
    if moved is not None:
        raise FileFormatError(f"{path}: its peft settings say {moved}: it is not for the base itself but for one that peft has changed; save it with path_initial_model_for_weight_conversion.")
    return settings


def _peft_scale(path: Path, settings: dict[str, Any], name: str, rank: int) -> float:
    """lora_alpha / rank by the settings, as peft reads them; 1 without any."""
    # diffusers puts the component before each setting, as before each name: "unet.lora_alpha".
    first = f"{name.partition('.')[0]}."
    component = first if f"{first}r" in settings else ""
    inner = name.removeprefix("base_model.model.").removeprefix(component)
    alpha, patterns = settings.get(f"{component}lora_alpha"), settings.get(f"{component}alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise FileFormatError(f"{path}: alpha_pattern in its peft settings holds no names; save the LoRA again.")
    for pattern, own in patterns.items():
        literal = pattern.removeprefix("^").replace("\\.", ".")
        if re.fullmatch(r"[\w.]+", literal) is None:
            raise FileFormatError(f"{path}: alpha_pattern has {pattern!r:.60} in its peft settings; only names of modules can be read.")
        if inner == literal or inner.endswith("." + literal):
            alpha = own
            break
    if alpha is None:
        return 1.0
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not math.isfinite(alpha) or alpha == 0:
        raise FileFormatError(f"{path}: lora_alpha is {alpha!r:.40} in its peft settings; it must be a finite number other than 0.")
    return alpha / math.sqrt(rank) if settings.get(f"{component}use_rslora") else alpha / rank
