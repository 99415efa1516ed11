"""Each family's modules under the names of its original code and of diffusers, in every trainer's spelling: each lands where it belongs."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from core.newer_denoisers import NEWER
from core.tiny_denoisers import DENOISERS
from lora.lora_files import write
from torch import Tensor

from sparsedict.lora.base import Base
from sparsedict.lora.convert import open_import

FIRST = "transformer_blocks.0."


def block(original: str, path: str, names: dict[str, str]) -> dict[str, list[str]]:
    return {original + name: [path + one for one in paths.split()] for name, paths in names.items()}


def flux_like(image: str, text: str, inner: tuple[str, str], single: tuple[str, str]) -> dict[str, list[str]]:
    double = {
        "img_attn.qkv": "attn.to_q attn.to_k attn.to_v", "txt_attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj", "img_attn.proj": "attn.to_out.0",
        "txt_attn.proj": "attn.to_add_out", "img_mlp.0": image + inner[0], "img_mlp.2": image + inner[1], "txt_mlp.0": text + inner[0], "txt_mlp.2": text + inner[1],
    }  # fmt: skip
    return block("double_blocks.0.", FIRST, double) | block("single_blocks.0.", f"single_{FIRST}", {"linear1": single[0], "linear2": single[1]})


SD3 = block(
    "joint_blocks.0.", FIRST,
    {
        "x_block.attn.qkv": "attn.to_q attn.to_k attn.to_v", "context_block.attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
        "x_block.attn.proj": "attn.to_out.0", "context_block.attn.proj": "attn.to_add_out", "x_block.mlp.fc1": "ff.net.0.proj", "x_block.mlp.fc2": "ff.net.2",
        "context_block.mlp.fc1": "ff_context.net.0.proj", "context_block.mlp.fc2": "ff_context.net.2", "x_block.adaLN_modulation.1": "norm1.linear",
        "context_block.adaLN_modulation.1": "norm1_context.linear",
    },
) | {"context_embedder": ["context_embedder"], "final_layer.linear": ["proj_out"], "t_embedder.mlp.0": ["time_text_embed.timestep_embedder.linear_1"]}  # fmt: skip
#: The halves of these are the other way round in diffusers.
SWAPPED = {"joint_blocks.2.context_block.adaLN_modulation.1": ["transformer_blocks.2.norm1_context.linear"], "final_layer.adaLN_modulation.1": ["norm_out.linear"]}
FLUX = flux_like("ff.", "ff_context.", ("net.0.proj", "net.2"), ("attn.to_q attn.to_k attn.to_v proj_mlp", "proj_out"))
LUMINA2 = {
    "attention.qkv": "attn.to_q attn.to_k attn.to_v", "attention.out": "attn.to_out.0", "feed_forward.w1": "feed_forward.linear_1",
    "feed_forward.w2": "feed_forward.linear_2", "feed_forward.w3": "feed_forward.linear_3", "adaLN_modulation.1": "norm1.linear",
}  # fmt: skip
Z_IMAGE = {
    "attention.qkv": "attention.to_q attention.to_k attention.to_v", "attention.out": "attention.to_out.0", "feed_forward.w1": "feed_forward.w1",
    "adaLN_modulation.0": "adaLN_modulation.0",
}  # fmt: skip
WAN = {
    "self_attn.q": "attn1.to_q", "self_attn.k": "attn1.to_k", "self_attn.o": "attn1.to_out.0", "cross_attn.v": "attn2.to_v", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2",
}  # fmt: skip
SANA = {
    "attn.qkv": "attn1.to_q attn1.to_k attn1.to_v", "attn.proj": "attn1.to_out.0", "cross_attn.q_linear": "attn2.to_q", "cross_attn.kv_linear": "attn2.to_k attn2.to_v",
}  # fmt: skip
QWEN = ("attn.to_q", "attn.add_k_proj", "attn.to_out.0", "attn.to_add_out", "img_mlp.net.0.proj", "txt_mlp.net.2", "img_mod.1")
UNET = {"transformer_blocks.0.attn1.to_q": "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.ff.net.2": "transformer_blocks.0.ff.net.2", "proj_in": "proj_in"}


def tiny(name: str) -> Any:
    return (DENOISERS | NEWER)[name][0]()[0]


def outline(name: str, **layers: int) -> Any:
    """In its real widths, which diffusers' converters know by heart, without weights."""
    with torch.device("meta"):
        return getattr(diffusers, name)(num_layers=2, **layers)


#: family → (its denoiser, pipeline, by the original's name the paths whose rows it holds)
FAMILIES: dict[str, tuple[Any, str, dict[str, list[str]]]] = {
    "sd15": (
        lambda: tiny("sd15"), "StableDiffusion",
        block("input_blocks.1.1.", "down_blocks.0.attentions.0.", UNET) | {"input_blocks.1.0.in_layers.2": ["down_blocks.0.resnets.0.conv1"]},
    ),
    "sdxl": (
        lambda: tiny("sdxl"), "StableDiffusionXL",
        block("output_blocks.0.1.", "up_blocks.0.attentions.0.", UNET) | {"input_blocks.1.0.in_layers.2": ["down_blocks.0.resnets.0.conv1"]},
    ),
    "sd3": (lambda: tiny("sd3"), "StableDiffusion3", SD3 | SWAPPED),
    "sd3.5": (
        lambda: tiny("sd35"), "StableDiffusion3",
        SD3 | block("joint_blocks.1.", "transformer_blocks.1.", {"x_block.attn2.qkv": "attn2.to_q attn2.to_k attn2.to_v", "x_block.attn2.proj": "attn2.to_out.0"}),
    ),
    "flux": (
        lambda: outline("FluxTransformer2DModel", num_single_layers=2), "Flux",
        FLUX | {"double_blocks.0.img_mod.lin": [f"{FIRST}norm1.linear"], "img_in": ["x_embedder"], "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"]},
    ),
    "chroma": (lambda: outline("ChromaTransformer2DModel", num_single_layers=2), "Chroma", FLUX),
    "flux2": (
        lambda: tiny("flux2"), "Flux2",
        flux_like("ff.", "ff_context.", ("linear_in", "linear_out"), ("attn.to_qkv_mlp_proj", "attn.to_out")) | {
            "img_in": ["x_embedder"], "double_stream_modulation_img.lin": ["double_stream_modulation_img.linear"],
        },
    ),
    "z_image": (lambda: tiny("z_image"), "ZImage", block("layers.0.", "layers.0.", Z_IMAGE) | block("noise_refiner.0.", "noise_refiner.0.", Z_IMAGE)),
    "lumina2": (lambda: outline("Lumina2Transformer2DModel"), "Lumina2", block("layers.0.", "layers.0.", LUMINA2) | block("noise_refiner.0.", "noise_refiner.0.", LUMINA2)),
    "wan": (lambda: tiny("wan"), "Wan", block("blocks.0.", "blocks.0.", WAN)),
    "qwen_image": (lambda: tiny("qwen_image"), "QwenImage", block(FIRST, FIRST, {name: name for name in QWEN})),
    "sana": (lambda: tiny("sana"), "Sana", block("blocks.0.", FIRST, SANA)),
}  # fmt: skip

#: spelling → (before a name, whether its dots become underscores, down, up, whether an alpha is there)
PEFT, KOHYA = ("lora_A", "lora_B", False), ("lora_down", "lora_up", True)
OF_THE_ORIGINAL = {
    "kohya, musubi": ("lora_unet_", True, *KOHYA),
    "ai-toolkit, diffusion-pipe": ("diffusion_model.", False, *PEFT),
    "ComfyUI's trainer": ("diffusion_model.", False, *KOHYA),
    "peft": ("base_model.model.", False, *PEFT),
    "LyCORIS": ("lycoris_", True, *KOHYA),
    "a checkpoint's prefix": ("model.diffusion_model.", False, *PEFT),
}
#: OneTrainer's OMI format, of the families that it had: the original's names with dots, and q, k, v of a fused Linear each by its number.
OMI = {"sd15": "unet", "sdxl": "unet", "sd3": "transformer", "sd3.5": "transformer", "flux": "transformer", "chroma": "transformer"}
OMI_NAMES = {"img_in": "img_in.proj"}
OF_DIFFUSERS = {
    "diffusers": ("{component}.", False, *PEFT),
    "OneTrainer": ("lora_{component}_", True, *KOHYA),
    "SimpleTuner's LyCORIS": ("lycoris_", True, *KOHYA),
    "peft": ("base_model.model.", False, *PEFT),
    "ai-toolkit": ("diffusion_model.", False, *PEFT),
}


def spelled(modules: dict[str, tuple[Tensor, Tensor]], before: str, flat: bool, down: str, up: str, alpha: bool) -> dict[str, Tensor]:
    tensors = {}
    for name, (first, second) in modules.items():
        name = before + (name.replace(".", "_") if flat else name)
        tensors |= {f"{name}.{down}.weight": first, f"{name}.{up}.weight": second} | ({f"{name}.alpha": torch.tensor(1.0)} if alpha else {})
    return tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_each_module_is_found(family, tmp_path):
    make, pipeline, originals = FAMILIES[family]
    base = Base.of(make(), getattr(diffusers, f"{pipeline}Pipeline"))
    shapes = {path: tuple(module.weight.shape) for path, module in base.denoiser.named_modules() if getattr(module, "weight", None) is not None}

    def pair(paths: list[str]) -> tuple[Tensor, Tensor]:
        shape = shapes[paths[0]]
        return torch.ones(1, *shape[1:]), torch.ones(sum(shapes[path][0] for path in paths), 1, *(1,) * (len(shape) - 2))

    wanted = {}
    for original, paths in originals.items():
        first = 0
        for path in paths:
            rows = list(range(first, first + shapes[path][0]))
            wanted[path] = rows[len(rows) // 2 :] + rows[: len(rows) // 2] if original in SWAPPED else rows
            first += shapes[path][0]
    by_path = {path: list(range(shapes[path][0])) for path in wanted}
    for spellings, modules, rows in (
        (OF_THE_ORIGINAL, {name: pair(paths) for name, paths in originals.items()}, wanted), (OF_DIFFUSERS, {path: pair([path]) for path in wanted}, by_path),
    ):  # fmt: skip
        for name, (before, *rest) in spellings.items():
            work = open_import(write(spelled(modules, before.format(component=base.component), *rest), tmp_path / "lora.safetensors"), base)
            found = {path: list(range(shapes[path][0]) if part.rows is None else part.rows) for path, [part] in work.by_path.items()}
            assert found == rows, name
            assert not work.aside, name


@pytest.mark.parametrize("pieces", ["all", "some"])
@pytest.mark.parametrize("family", OMI)
def test_omi(family, pieces, tmp_path):
    """Each part of a fused Linear is a module to OMI; a file need not have all of them. The text encoders' modules and embeddings are kept."""
    make, pipeline, originals = FAMILIES[family]
    base = Base.of(make(), getattr(diffusers, f"{pipeline}Pipeline"))
    shapes = {path: tuple(module.weight.shape) for path, module in base.denoiser.named_modules() if getattr(module, "weight", None) is not None}
    modules, wanted = {}, {}
    for original, paths in originals.items():
        for number, path in enumerate(paths):
            if pieces == "some" and len(paths) > 1 and number in (1, 3):
                continue
            shape = shapes[path]
            name = OMI_NAMES.get(original, original) if len(paths) == 1 else f"{original}.{number}"
            modules[name] = torch.ones(1, *shape[1:]), torch.ones(shape[0], 1, *(1,) * (len(shape) - 2))
            rows = list(range(shape[0]))
            wanted[path] = rows[len(rows) // 2 :] + rows[: len(rows) // 2] if original in SWAPPED else rows
    rest = {"clip_l.text_model.encoder.layers.0.mlp.fc1": (torch.ones(1, 4), torch.ones(4, 1)), "t5.encoder.block.0.layer.0.SelfAttention.q": (torch.ones(1, 4), torch.ones(4, 1))}
    tensors = spelled(modules, f"{OMI[family]}.", False, *KOHYA) | spelled(rest, "", False, *KOHYA) | {"bundle_emb.zorp": torch.ones(1, 4)}
    work = open_import(write(tensors, tmp_path / "omi.safetensors"), base)
    assert {path: list(range(shapes[path][0]) if part.rows is None else part.rows) for path, [part] in work.by_path.items()} == wanted
    assert work.report.text_encoder == 6 and work.report.aside == ["bundle_emb.zorp"]
