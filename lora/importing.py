"""A LoRA file becomes a dictionary: one site for each Linear or convolution that it adapts, atoms along the update's singular directions.

With all atoms kept the dictionary is the LoRA. What a dictionary cannot say – the text encoders' part, norms – is carried along as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.file_format import DTYPES
from ..sparsedict_core.low_rank import linear_config, linear_site, singular_factors
from ..sparsedict_core.shown_text import escaped, shown
from ..sparsedict_core.site import SiteName, SparseSite
from ..sparsedict_core.streams import name_sites
from ..sparsedict_core.text_encoders import is_text_encoder
from .known_bases import base_of, names_tell
from .lora_file import LoraFile
from .names import Part
from .updates import Factors, factors, widths

#: Directions kept of a change that is no product of two thin factors.
RANK = 64


@dataclass(frozen=True)
class BasePlaces:
    """What a base model has to offer: its family, its component, and (d_in, d_out) of each Linear and convolution by path.

    `outputs` are its attention outputs, by which layers are numbered; `weight_of` gives a path's weights where they are at hand (DoRA
    needs them), `patches` are the (channels, height, width) that a convolution sees at once.
    """

    family: str
    component: str
    widths: Mapping[str, tuple[int, int]]
    outputs: Sequence[SiteName]
    weight_of: Callable[[str], Tensor | None] = lambda path: None
    patches: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: What to do with a LoRA of the family whose names nothing here knows.
    other_way: str = "convert it in ComfyUI, by Sparse Dict from LoRA, which asks that host for the names"

    def names(self) -> dict[str, SiteName]:
        """The site's name at each path. All are named, so that a name does not depend on what a LoRA happens to hold."""
        prefix = f"{self.component}."
        return {name.path.removeprefix(prefix): name for name in name_sites(self.outputs, (prefix + path for path in self.widths), self.component)}


@dataclass
class ImportReport:
    """What became of a file. `kinds` counts modules by kind; `lost` is ‖error‖ / ‖ΔW‖ by module, where there is one."""

    path: str
    family: str
    kinds: dict[str, int] = field(default_factory=dict)
    sites: int = 0
    atoms: int = 0
    without_alpha: int = 0
    lost: dict[str, float] = field(default_factory=dict)
    text_encoder: int = 0
    aside: list[str] = field(default_factory=list)
    homeless: int = 0  # modules that have no place in the base

    @property
    def text(self) -> str:
        """Lines for people."""
        kinds = ", ".join(f"{count} {name}" for name, count in self.kinds.items())
        lines = [f"{escaped(str(self.path))}: {kinds} modules for {self.family} became {self.atoms} atoms at {self.sites} sites"]
        if self.without_alpha:
            lines.append(f"{self.without_alpha} modules say no alpha: it was taken as the rank, as all loaders do")
        if self.lost:
            lines.append(f"{len(self.lost)} modules were approximated; the largest error is {max(self.lost.values()):.2%} of a module's change")
        if self.text_encoder:
            lines.append(f"{self.text_encoder} tensors of text encoders were kept as they are; the LoRA loader of whoever applies the dictionary puts them on its text encoders")
        if self.sites and not self.atoms:
            lines.append("its weights are zero everywhere, so it changes nothing")
        if self.homeless:
            lines.append(f"{self.homeless} of its modules have no place in this base and do nothing here")
        if self.aside:
            lines.append(f"{len(self.aside)} other tensors were kept as they are, for LoRA loaders that know a place for them; the first is {shown(self.aside[0])}")
        return "\n".join(lines)


class LoraImport:
    """A file and the base that it is for, looked at and found to fit; the weights are read when sites are made, one at a time."""

    def __init__(self, file: LoraFile, parts: Iterable[Part], base: BasePlaces, rank: int = RANK, dtype: torch.dtype = torch.float32, allow_part: bool = False) -> None:
        """`parts` say where the file's modules belong; `rank` is for changes that are no two thin factors; `allow_part` lets modules
        stay aside for which the base has no place. Raises FileFormatError with one sentence for whatever doesn't fit."""
        self.file, self.base, self.rank, self.dtype = file, base, rank, dtype
        self._last: tuple[str, Factors] | None = None
        self.report = ImportReport(str(file.path), base.family)
        self.by_module: dict[str, list[Part]] = {}
        for part in parts:
            self.by_module.setdefault(part.module, []).append(part)
        wanted = [name for name in file.modules if not is_text_encoder(name)]
        homeless = [name for name in wanted if not all(self._fits(part) for part in self.by_module.get(name, [])) or name not in self.by_module]
        if not wanted or len(homeless) == len(wanted) or (homeless and not allow_part):
            raise FileFormatError(self._unfit(wanted, homeless), about_base=bool(wanted))
        self.by_path: dict[str, list[Part]] = {}
        for name in wanted:
            for part in self.by_module[name] if name not in homeless else []:
                self.by_path.setdefault(part.path, []).append(part)
        for name in wanted if not homeless else [name for name in wanted if name not in homeless]:
            module = file.modules[name]
            self.report.kinds[module.kind] = self.report.kinds.get(module.kind, 0) + 1
            self.report.without_alpha += file.without_alpha(module)
        aside = [key for name in file.modules if name in homeless or name not in wanted for key in file.keys_of(name)]
        self.aside = [*aside, *file.others]
        self.report.homeless = len(homeless)
        self.report.text_encoder = sum(map(is_text_encoder, self.aside))
        self.report.aside = [key for key in self.aside if not is_text_encoder(key)]

    def sites(self) -> Iterator[SparseSite]:
        """In the base's order."""
        names = self.base.names()
        for path in sorted(self.by_path, key=list(names).index):
            pairs = [self._part(part) for part in self.by_path[path]]
            down, up = torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1)
            site = linear_site(names[path], *singular_factors(down, up), dtype=self.dtype)
            self.report.sites += 1
            self.report.atoms += site.atoms
            yield site

    def adapter(self, title: str) -> SparseAdapter:
        """The whole dictionary. Raises FileFormatError for values that are not finite."""
        sites = list(self.sites())
        adapter = self.finished(sites, title)
        adapter.aside = dict(self.aside_tensors())
        return adapter

    def finished(self, sites: list[SparseSite], title: str) -> SparseAdapter:
        """The dictionary of `sites`, with what it says about itself."""
        adapter = SparseAdapter(sites, linear_config(max(site.atoms for site in sites)), self.base.component, {"title": title, "base_family": self.base.family})
        step: dict[str, object] = {"operation": "convert", "from": "lora", "modules": sum(self.report.kinds.values()), "kinds": ", ".join(self.report.kinds)}
        if self.report.lost:
            step["largest_error"] = round(max(self.report.lost.values()), 6)
        adapter.metadata["lineage"] = [step]
        if self.base.patches:
            adapter.metadata["convolutions"] = {path: list(self.base.patches[path]) for path in self.by_path if path in self.base.patches}
        words = self.file.trigger_words
        if words:
            adapter.metadata["trigger_words"] = words
        return adapter

    def aside_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What is kept as it is; numbers of types that a dictionary's file does not know (fp8, fp64) become fp32, and a scale that only
        peft's settings tell goes into the numbers, as the settings stay behind."""
        scales = {module.keys["up"]: self.file.own_scale(module) for module in self.file.modules.values() if "up" in module.keys}
        for key in self.aside:
            tensor = self.file.read(key)
            if scales.get(key, 1.0) != 1:
                tensor = tensor.float() * scales[key]
            yield key, tensor if tensor.dtype in (*DTYPES.values(), torch.int32) else tensor.float()

    def _part(self, part: Part) -> tuple[Tensor, Tensor]:
        """(down, up) of what `part` adds at its path."""
        if self._last is None or self._last[0] != part.module:
            module = self.file.modules[part.module]
            self._last = part.module, factors(self.file, module, self.rank, self._weight(part.module) if "dora" in module.keys else None)
            if self._last[1].lost > 1e-6:
                self.report.lost[part.module] = self._last[1].lost
        down, up, _ = self._last[1]
        return down, up if part.rows is None else up[torch.tensor(part.rows)]

    def _weight(self, module: str) -> Tensor | None:
        """The base's weights at a module, put together of those of its parts; None where they are not at hand."""
        parts = self.by_module[module]
        weights = [weight for part in parts if (weight := self.base.weight_of(part.path)) is not None]
        if len(weights) < len(parts):
            return None
        if parts[0].rows is None:
            return weights[0]
        whole = torch.cat(weights)
        whole[torch.tensor([row for part in parts for row in part.rows or ()])] = whole.clone()
        return whole

    def _fits(self, part: Part) -> bool:
        d_in, d_out = widths(self.file, self.file.modules[part.module])
        return self.base.widths.get(part.path) == (d_in, d_out if part.rows is None else len(part.rows))

    def _unfit(self, wanted: list[str], homeless: list[str]) -> str:
        path, family = self.file.path, self.base.family
        if not wanted:
            return f"{path} changes text encoders alone ({len(self.file.modules)} modules); there is nothing of the denoiser to look into, load it as a LoRA."
        first = homeless[0]
        part = next((part for part in self.by_module.get(first, []) if part.path in self.base.widths and not self._fits(part)), None)
        if part is None:
            why = f"the first is {first}, which is no Linear or convolution of the base"
        else:
            ins, outs = widths(self.file, self.file.modules[first])
            base_ins, base_outs = self.base.widths[part.path]
            why = f"the first is {first}, which maps {ins} channels to {outs} where the base has {base_ins} and {base_outs}"
        made_for = base_of(self.file)
        same = family == made_for or family in names_tell(self.file)
        if len(homeless) == len(wanted) and part is None and same:
            return f"{path}: none of its {len(wanted)} modules has a name that is known here ({why}), though such names are {family}'s; {self.base.other_way}."
        if len(homeless) == len(wanted):
            other = f"this base is {'another ' if same else ''}{family}"
            return f"{path}: none of its {len(wanted)} modules fits ({why}); {f'it was made for {made_for}, ' if made_for and not same else ''}{other}: give the base that the LoRA was made for."
        return (
            f"{path}: {len(wanted) - len(homeless)} of its {len(wanted)} modules fit this {family} base, {len(homeless)} {'does' if len(homeless) == 1 else 'do'} not ({why}); give the base that "
            f"it was made for{f' ({made_for})' if made_for and not same else ''}, or allow a part to be left aside (allow part, --allow-part)."
        )
