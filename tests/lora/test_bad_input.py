"""What is no LoRA for this base: one sentence each, naming the file and what to do; nothing is written."""

from __future__ import annotations

import pytest
import torch
from core.tiny_denoisers import DENOISERS
from lora.lora_files import kohya_style, linears, peft_style, random_lora, write

from sparsedict.lora.base import Base
from sparsedict.lora.convert import lora_to_adapter
from sparsedict.sparsedict_core.errors import FileFormatError, SparseDictError
from sparsedict.sparsedict_core.low_rank import linear_factors


@pytest.fixture(scope="module")
def base():
    return Base.of(DENOISERS["sd15"][0]()[0])


@pytest.fixture(scope="module")
def lora(base):
    return random_lora(linears(base.denoiser))


def refused(path, base, match, **options):
    with pytest.raises(SparseDictError, match=match) as caught:
        lora_to_adapter(path, base, **options)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and text.endswith(".")
    return text


def changed(lora, **entries):
    tensors = kohya_style(lora)
    name = next(iter(tensors)).split(".")[0]
    return {**tensors, **{f"{name}.{key.replace('__', '.')}": value for key, value in entries.items()}}, name


@pytest.mark.parametrize(
    "tensors, match",
    [
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2, 2)}, "checkpoint"),
        ({"emb_params": torch.ones(3, 768)}, "textual inversion"),
        ({"clip_l": torch.ones(3, 768), "clip_g": torch.ones(3, 1280)}, "textual inversion"),
        ({"lora_unet_x.oft_blocks": torch.ones(2, 2, 2)}, "OFT"),
        ({"base_model.model.x.boft_R": torch.ones(2, 2, 2, 2)}, "BOFT"),
        ({"lora_unet_x.a1.weight": torch.ones(2, 2), "lora_unet_x.b1.weight": torch.ones(2, 2)}, "GLoRA"),
        ({"lora_unet_x.weight": torch.ones(2), "lora_unet_x.on_input": torch.ones(1)}, "IA"),
        ({"base_model.model.x.vera_lambda_b": torch.ones(2), "base_model.model.x.vera_lambda_d": torch.ones(2)}, "VeRA"),
        ({"something": torch.ones(2)}, "no LoRA"),
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 4), "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(4, 1)}, "text encoders alone"),
    ],
)  # fmt: skip
def test_other_files(tensors, match, base, tmp_path):
    refused(write(tensors, tmp_path / "x.safetensors"), base, match)


def test_broken_files(base, lora, tmp_path):
    refused(tmp_path / "missing.safetensors", base, "does not exist")
    path = write(kohya_style(lora), tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, base, "truncated")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"\x80\x04" + bytes(100))
    refused(other, base, "pickle")
    for begun in (b"hello", b"a text that was saved under this name"):
        other.write_bytes(begun)
        assert "SparseDict" not in refused(other, base, "is not a safetensors file").replace(str(other), "")


@pytest.mark.parametrize(
    "entries, match",
    [
        ({"alpha": torch.tensor(0.0)}, "alpha is 0"),
        ({"alpha": torch.tensor(float("nan"))}, "alpha is nan"),
        ({"alpha": torch.tensor(float("inf"))}, "alpha is inf"),
        ({"alpha": torch.ones(2)}, "alpha is one number"),
        ({"lora_down__weight": torch.zeros(0, 8), "lora_up__weight": torch.zeros(8, 0)}, "rank 0"),
        ({"lora_down__weight": torch.full((3, 8), float("nan"))}, "not finite"),
        ({"lora_down__weight": torch.ones(3, 8, dtype=torch.int32)}, "I32"),
        ({"lora_down__weight": torch.tensor(1.0)}, "no part of a LoRA"),
        ({"lora_up__weight": torch.ones(8)}, "no part of a LoRA"),
        ({"lora_mid__weight": torch.ones(2, 4, 3, 3)}, "do not multiply"),
    ],
)  # fmt: skip
def test_bad_values(entries, match, base, lora, tmp_path):
    tensors, name = changed(lora, **entries)
    assert name in refused(write(tensors, tmp_path / "bad.safetensors"), base, match)


@pytest.mark.parametrize(
    "entries, match",
    [
        ({"lokr_w1": (2, 2)}, "no lokr_w2 beside it"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (4, 2), "lokr_w2_b": (2,)}, "no part of a LoRA"),
        ({"lokr_t2": (2, 2, 1, 1)}, "no lokr_w1 beside it"),
        # torch would stretch the smaller one over the other.
        ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (8, 2), "hada_w2_b": (2, 1)}, "do not fit together"),
        ({"diff": (8, 8), "dora_scale": (1, 1)}, "do not fit together"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(entries, match, base, lora, tmp_path):
    name = "lora_unet_" + next(path for path, (down, up) in lora.items() if down.shape[1] == up.shape[0] == 8).replace(".", "_")
    tensors = {f"{name}.{part}": torch.ones(shape) for part, shape in entries.items()}
    assert name in refused(write(tensors, tmp_path / "bad.safetensors"), base, match)


def test_a_lora_for_a_base_that_peft_has_changed(base, lora, tmp_path):
    """Put on the base itself it would be another LoRA."""
    import json

    for start in ("pissa_niter_4", "olora"):
        settings = json.dumps({"unet.r": 3, "unet.lora_alpha": 3, "unet.init_lora_weights": start})
        refused(write(peft_style(lora, "unet"), tmp_path / "pissa.safetensors", lora_adapter_metadata=settings), base, start)


def test_missing_half(base, lora, tmp_path):
    tensors, name = changed(lora)
    del tensors[f"{name}.lora_up.weight"]
    refused(write(tensors, tmp_path / "half.safetensors"), base, "no up beside it")


def test_types_that_are_fine(base, lora, tmp_path):
    """Mixed types, fp8 and a missing alpha are read; the numbers are those that the file holds."""
    tensors = kohya_style(lora, alpha=None)
    types = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float32)
    tensors = {key: tensor.to(types[number % 4]) for number, (key, tensor) in enumerate(tensors.items())}
    adapter, report = lora_to_adapter(write(tensors, tmp_path / "mixed.safetensors"), base)
    assert report.without_alpha == len(lora) and "alpha" in report.text
    for path in lora:
        name = "lora_unet_" + path.replace(".", "_")
        down, up = linear_factors(adapter.sites[f"unet.{path}"])
        wanted = tensors[f"{name}.lora_up.weight"].double() @ tensors[f"{name}.lora_down.weight"].double()
        torch.testing.assert_close(up @ down, wanted, rtol=1e-5, atol=1e-6)


def test_another_base(base, tmp_path):
    other = random_lora(linears(DENOISERS["sdxl"][0]()[0]))
    text = refused(write(peft_style(other, "unet"), tmp_path / "xl.safetensors", **{"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}), base, "none|do not")
    assert "stable-diffusion-xl-v1-base" in text and "sd15" in text
    flux = random_lora(linears(DENOISERS["flux"][0]()[0]))
    text = refused(write(peft_style(flux, "transformer"), tmp_path / "flux.safetensors"), base, "none of its")
    assert "flux" in text and "sd15" in text


def test_names_of_the_family_that_are_not_known_here(tmp_path):
    import diffusers

    base = Base.of(DENOISERS["sd3"][0]()[0], diffusers.StableDiffusion3Pipeline)
    path = write(kohya_style({"joint_blocks.0.x_block.attn.unheard_of": (torch.ones(2, 16), torch.ones(48, 2))}), tmp_path / "kohya.safetensors")
    assert "convert it in ComfyUI" in refused(path, base, "none of its 1 modules has a name that is known here")


def test_another_model_of_the_same_family(tmp_path):
    import diffusers

    base = Base.of(DENOISERS["sd3"][0]()[0], diffusers.StableDiffusion3Pipeline)
    path = write(kohya_style({"joint_blocks.0.x_block.attn.qkv": (torch.ones(2, 24), torch.ones(72, 2))}), tmp_path / "large.safetensors")
    text = refused(path, base, "maps 24 channels to 72 where the base has 16 and 16")
    assert "another sd3" in text and "made for sd3" not in text


def test_a_text_encoders_names_tell_no_family(base, tmp_path):
    """Its "self_attn" is no Wan's."""
    tensors = kohya_style({"somewhere": (torch.ones(2, 4), torch.ones(4, 2))}) | kohya_style({"text_model.encoder.layers.0.self_attn.q_proj": (torch.ones(2, 4), torch.ones(4, 2))}, "lora_te_")
    assert "wan" not in refused(write(tensors, tmp_path / "lora.safetensors"), base, "none of its 1 modules")


def test_a_part_that_fits(base, lora, tmp_path):
    tensors = kohya_style(lora) | kohya_style({"somewhere.else": (torch.ones(2, 4), torch.ones(4, 2))})
    path = write(tensors, tmp_path / "part.safetensors")
    text = refused(path, base, f"{len(lora)} of its {len(lora) + 1} modules fit")
    assert "lora_unet_somewhere_else" in text
    adapter, report = lora_to_adapter(path, base, allow_part=True)
    assert len(adapter.sites) == len(lora)
    assert [key for key in report.aside if "somewhere_else" in key] == report.aside and len(report.aside) == 3
    assert "1 of its modules have no place in this base" in report.text


def test_a_lora_of_zeros_is_said_to_do_nothing(base, lora, tmp_path):
    zeros = {path: (down, torch.zeros_like(up)) for path, (down, up) in lora.items()}
    adapter, report = lora_to_adapter(write(kohya_style(zeros), tmp_path / "zeros.safetensors"), base)
    assert adapter.atom_count == 0 and "changes nothing" in report.text


def test_patterns_in_peft_settings_are_no_patterns(base, lora, tmp_path):
    """A stranger's regular expression is not run: one can take for ever."""
    import json

    settings = json.dumps({"unet.r": 3, "unet.lora_alpha": 3, "unet.alpha_pattern": {"(a+)+$": 1}})
    with pytest.raises(FileFormatError, match="only names of modules"):
        lora_to_adapter(write(peft_style(lora, "unet"), tmp_path / "pattern.safetensors", lora_adapter_metadata=settings), base)
