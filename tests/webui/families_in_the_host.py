"""Runs inside a web UI's own Python: small random models of the host's own classes, one of each family, with an adapter on them.

    python families_in_the_host.py ROOT PROJECT         prints as JSON what happened

The sites that the pack finds by name are held against those that are seen when the model runs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

ROOT, PROJECT = Path(sys.argv[1]), Path(sys.argv[2])
FORGE, NEO = (ROOT / "modules_forge").is_dir(), (ROOT / "modules_forge/packages").is_dir()
sys.argv = ["webui.py", *(["--cpu"] if NEO else ["--always-cpu"] if FORGE else ["--use-cpu", "all", "--no-half"])]
os.chdir(ROOT)
sys.path[:0] = [str(ROOT), str(ROOT / "repositories/generative-models"), str(ROOT / ("modules_forge/packages" if NEO else "packages_3rdparty"))]

if not FORGE:  # its modules import each other, in this order only
    from modules import initialize

    initialize.imports()

import torch  # noqa: E402

if not FORGE:
    from modules import devices

    devices.dtype = devices.dtype_unet = torch.float32  # as the host sets them when it loads a checkpoint

spec = importlib.util.spec_from_file_location("pack", PROJECT / "__init__.py", submodule_search_locations=[str(PROJECT)])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
names = importlib.import_module("pack.webui_host.names")
core = {name: importlib.import_module(f"pack.sparsedict_core.{name}") for name in ("adapter", "attachment", "config", "data_flow", "site", "errors")}


def one_of(*paths: str) -> object:
    """The class at `module.Class`, of whichever host this is."""
    for path in paths:
        module, _, name = path.rpartition(".")
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    return None


def flux(neo: dict, **sizes: object) -> dict:
    shape = {"in_channels": 16, "vec_in_dim": 8, "context_in_dim": 12, "hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2}
    shape |= {"depth_single_blocks": 2, "axes_dim": [4, 6, 6], "theta": 10000, "qkv_bias": True, "guidance_embed": False}
    return {**shape, **sizes, **({"out_channels": 16, "patch_size": 2, **neo} if NEO else {})}


def unet(adm: int | None) -> dict:
    if not FORGE:  # the class of the model's first release
        shape = {"in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2], "attention_resolutions": [2]}
        return {**shape, "num_classes": "sequential", "adm_in_channels": adm, "num_heads": 2, "transformer_depth": [0, 2], "context_dim": 12, "use_spatial_transformer": True, "use_linear_in_transformer": True, "spatial_transformer_attn_type": "softmax"}
    shape = {"in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1], "channel_mult": [1, 2], "num_heads": 2}
    depths = {"transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 2, 2], "transformer_depth_middle": 2, "context_dim": 12}
    classes = {"num_classes": "sequential", "adm_in_channels": adm} if adm else {}
    return {**shape, **depths, **classes, "use_spatial_transformer": True, "use_linear_in_transformer": bool(adm)}


text, pooled, time = torch.randn(1, 5, 12), torch.randn(1, 8), torch.tensor([0.5])
picture, wide = torch.randn(1, 4, 16, 16), torch.randn(1, 16, 8, 8)
UNET = ("backend.nn.unet.IntegratedUNet2DConditionModel",)
FLUX = ("backend.nn.flux.IntegratedFluxTransformer2DModel",)
FLUX2 = {"mlp_silu_act": True, "global_modulation": True, "ops_bias": False, "vec_in_dim": None, "in_channels": 16, "patch_size": 1}
CHROMA = flux({"in_channels": 64, "txt_ids_dims": [], "in_dim": 64, "out_dim": 32, "hidden_dim": 16, "n_layers": 1})
if not NEO:
    CHROMA |= {"guidance_out_dim": 32, "guidance_hidden_dim": 16, "guidance_n_layers": 1}
del CHROMA["guidance_embed"]
NEXT = {"patch_size": 2, "in_channels": 16, "dim": 256, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 16, "axes_dims": [4, 6, 6], "axes_lens": [32, 32, 32], "multiple_of": 8, "qk_norm": True, "cap_feat_dim": 12}
ANIMA = {"in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "crossattn_emb_channels": 12, "adaln_lora_dim": 8, "num_blocks": 2, "num_heads": 2}
MMDIT = {"input_size": None, "patch_size": 2, "in_channels": 16, "depth": 2, "adm_in_channels": 8, "pos_embed_max_size": 16, "num_patches": 256}
QWEN = {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 12, "axes_dims_rope": (4, 6, 6)}
embedder = {"target": "torch.nn.Linear", "params": {"in_features": 12, "out_features": 128}}

#: family → its class in the hosts, its shape, a step's arguments
MODELS = {
    "sd15": (UNET, unet(None), (picture, time, text), {}),
    "sdxl": (UNET if FORGE else ("sgm.modules.diffusionmodules.openaimodel.UNetModel",), unet(8), (picture, time, text), {"y": pooled}),
    "sd3": (("backend.nn.mmditx.MMDiTX", "modules.models.sd3.mmdit.MMDiT"), {**MMDIT, "context_embedder_config": embedder}, (wide, time), {"y": pooled, "context": text}),
    "flux": (FLUX, flux({}), (wide, time, text, pooled), {}),
    "flux2": (FLUX if NEO else (), flux(FLUX2), (wide, time, text), {}),
    "chroma": (("backend.nn.chroma.IntegratedChromaTransformer2DModel",), CHROMA, (wide, time, text), {"guidance": time}),
    "qwen_image": (("backend.nn.qwen.QwenImageTransformer2DModel",), QWEN, (wide[:, :, None], time, text), {}),
    "lumina2": (("backend.nn.lumina.NextDiT",), NEXT, (wide, time, text), {"num_tokens": 5}),
    "z_image": (("backend.nn.lumina.NextDiT",), {**NEXT, "z_image_modulation": True, "pad_tokens_multiple": 4}, (wide, time, text), {"num_tokens": 5}),
    "Anima": (("backend.nn.anima.Anima",), ANIMA, (wide[:, :, None], time, text), {}),
}


def build(classes: tuple[str, ...], shape: dict) -> torch.nn.Module | None:
    kind = one_of(*classes)
    if kind is None:
        return None
    model = kind(**shape)
    weights = {key: torch.randn_like(value) / (value.shape[-1] ** 0.5 if value.ndim > 1 else 1) for key, value in model.state_dict().items() if value.is_floating_point()}
    if FORGE:  # its own Linear, which has weights only once they are loaded
        from backend.operations import using_forge_operations

        with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32, manual_cast_enabled=True):
            model = kind(**shape)
    model.load_state_dict(weights, strict=False)
    return model.float().eval().requires_grad_(False)


def canonical(layout, depth: int = 4) -> list[str]:
    """Every name that diffusers may have for an attention output of a model as deep as these."""
    heads = [f"{side}_blocks.{b}" for side in ("down", "up") for b in range(2)] + ["mid_block"]
    found = [f"{h}.attentions.{a}.transformer_blocks.{n}.attn{k}.to_out.0" for h in heads for a in range(3) for n in range(2) for k in (1, 2)]
    for n in range(depth):
        found += [f"transformer_blocks.{n}.{end}" for end in ("attn.to_out.0", "attn.to_add_out", "attn2.to_out.0")]
        found.append(f"single_transformer_blocks.{n}." + ("attn.to_out" if layout.family == "flux2" else "proj_out"))
        found += [f"{stack}.{n}.{a}.to_out.0" for stack in ("noise_refiner", "context_refiner", "layers") for a in ("attn", "attention")]
    return found


def adapter_for(model: torch.nn.Module, paths: dict[str, str], component: str, family: str):
    settings, generator, sites = core["config"].AdapterConfig(atoms=6, rank=2), torch.Generator().manual_seed(0), []
    for layer, (path, own) in enumerate(paths.items()):
        width, inner = model.get_submodule(own).weight.shape
        made = core["site"].SparseSite.create(core["site"].SiteName(f"{component}.{path}", layer), inner, width, settings, generator)
        made.dictionary_basis.data.normal_(generator=generator)
        sites.append(made)
    return core["adapter"].SparseAdapter(sites, settings, component, {"base_family": family}).requires_grad_(False)


def tried(family: str, model: torch.nn.Module, args: tuple, kwargs: dict) -> dict:
    def step() -> torch.Tensor:
        out = model(*args, **kwargs)
        return out[0] if isinstance(out, (tuple, list)) else out

    seen = {output.path for output in core["data_flow"].follow_a_run(model, step).outputs}
    if family == "Anima":  # nobody wrote it down: a file has the model's own names, as ComfyUI's trainer gives them
        paths, component = {path: path for path in sorted(seen) if "llm_adapter" not in path}, "diffusion_model"
        seen = set(paths)
    else:
        layout = names.layout_of(model)
        component, modules = layout.component, dict(model.named_modules())
        paths = {path: found[0] for path in canonical(layout) if (found := layout.rename(path)) is not None and found[0] in modules}
        family = layout.family
    adapter = adapter_for(model, paths, component, family)
    base = step()
    attachment = core["attachment"].Attachment(adapter, names.places_for(adapter, model), 1.0)
    changed, again = step(), step()
    attachment.strength = 0.0
    nothing = step()
    attachment.detach()
    return {
        "family": family, "sites": len(paths), "named, not seen": sorted(set(paths.values()) - seen), "seen, not named": sorted(seen - set(paths.values())),
        "linear": type(model.get_submodule(next(iter(paths.values())))).__mro__[0].__module__,
        "changed": bool((changed - base).abs().max() > 1e-3), "repeatable": torch.equal(changed, again), "zero": torch.equal(nothing, base),
        "restored": torch.equal(step(), base),
    }  # fmt: skip


report = {}
with torch.no_grad():
    for wanted, (classes, shape, args, kwargs) in MODELS.items():
        torch.manual_seed(0)
        model = build(classes, shape)
        if model is not None:
            report[wanted] = tried(wanted, model, args, kwargs)
print("REPORT " + json.dumps(report))
