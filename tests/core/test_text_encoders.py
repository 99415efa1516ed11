"""What a LoRA holds for text encoders, on real (tiny) diffusers pipelines: as the pipeline's own loader has it, for as long as the dictionary is there."""

from __future__ import annotations

import warnings

import pytest
import tiny_pipelines
import torch
from lora.lora_files import kohya_style, linears, peft_style, random_lora, write
from torch import nn

from sparsedict import attached
from sparsedict.lora.base import Base
from sparsedict.lora.convert import lora_to_adapter
from sparsedict.sparsedict_core import compose, load, save
from sparsedict.sparsedict_core.errors import SiteError

PROMPT = "a zorp"
ENDS = ("q_proj", "out_proj", "fc1")


def tiny(family):
    torch.manual_seed(0)
    made = tiny_pipelines.PIPELINES[family]()
    made.set_progress_bar_config(disable=True)
    for part in made.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    return made


def encoder_lora(encoder, seed=5):
    """By the path that LoRA files have, whatever this version of transformers calls it."""
    found = random_lora(linears(encoder, ENDS), seed=seed)
    return {path if path.startswith("text_model.") else f"text_model.{path}": pair for path, pair in found.items()}


def lora_file(pipe, path, style="kohya", **text):
    """A LoRA of the denoiser and of its first two text encoders."""
    component = "unet" if hasattr(pipe, "unet") else "transformer"
    denoiser = random_lora(linears(getattr(pipe, component)), size=0.1)
    encoders = {name: encoder_lora(part) for name, part in pipe.components.items() if name in ("text_encoder", "text_encoder_2") and "CLIP" in type(part).__name__}
    if style == "kohya":
        tensors = kohya_style(denoiser)
        for (_, lora), prefix in zip(encoders.items(), ("lora_te1_", "lora_te2_") if len(encoders) > 1 else ("lora_te_",), strict=True):
            tensors |= kohya_style(lora, prefix)
    else:
        tensors = peft_style(denoiser, component)
        for name, lora in encoders.items():
            tensors |= peft_style(lora, name)
    return write(tensors, path, **text)


@torch.no_grad()
def picture(pipe):
    size = {"width": tiny_pipelines.SIDE, "height": tiny_pipelines.SIDE}
    return pipe(PROMPT, num_inference_steps=2, generator=torch.Generator().manual_seed(3), output_type="pt", **size).images


def dictionary(pipe, path, tmp_path):
    """By way of a file of ours."""
    component = "unet" if hasattr(pipe, "unet") else "transformer"
    adapter, report = lora_to_adapter(path, Base.of(getattr(pipe, component), type(pipe)))
    assert report.text_encoder and not report.aside
    save(adapter, tmp_path / "dictionary.safetensors", torch.float32, overwrite=True)
    return load(tmp_path / "dictionary.safetensors")


@pytest.mark.parametrize("family, style", [("sd15", "kohya"), ("sdxl", "kohya"), ("sdxl", "diffusers"), ("sd3", "diffusers"), ("flux", "diffusers")])
def test_pictures_are_those_of_the_lora(family, style, tmp_path):
    pipe = tiny(family)
    path = lora_file(pipe, tmp_path / "lora.safetensors", style)
    adapter, base = dictionary(pipe, path, tmp_path), picture(pipe)
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    with adapter.attach(denoiser, component=adapter.component):
        without = picture(pipe)
    pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    theirs = picture(pipe)
    pipe.unload_lora_weights()
    with adapter.attach(pipe) as attachment:
        ours = picture(pipe)
        attachment.strength = 0.0
        assert torch.equal(picture(pipe), base)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert float((without - theirs).abs().max()) > 10 * float((ours - theirs).abs().max()), "the text encoders' part is not seen in this picture"
    assert torch.equal(picture(pipe), base)
    assert not any(pipe.get_list_adapters().values())


def test_it_follows_the_adapter(tmp_path):
    """Strength, gains of no atom, and LoRAs of the user's own beside it."""
    pipe = tiny("sd15")
    adapter = dictionary(pipe, lora_file(pipe, tmp_path / "lora.safetensors"), tmp_path)
    base = picture(pipe)
    own = write(peft_style(encoder_lora(pipe.text_encoder, seed=9), "text_encoder"), tmp_path / "own.safetensors")

    def states():
        return pipe.encode_prompt(PROMPT, torch.device("cpu"), 1, False)[0].detach()

    attachment = adapter.attach(pipe, 0.5)
    half = states()
    attachment.strength = 1.0
    assert not torch.allclose(states(), half)
    attachment.set_gains({key: torch.zeros(site.atoms) for key, site in adapter.sites.items()})
    assert torch.equal(picture(pipe), base)
    attachment.set_gains(None)
    ours = states()
    attachment.detach()
    pipe.load_lora_weights(str(own.parent), weight_name=own.name, adapter_name="own")
    alone = states()
    attachment = adapter.attach(pipe)  # after it
    both = states()
    attachment.strength = 0.0
    torch.testing.assert_close(states(), alone)
    attachment.detach()
    pipe.unload_lora_weights()
    attachment = adapter.attach(pipe)
    pipe.load_lora_weights(str(own.parent), weight_name=own.name, adapter_name="own")  # and before it
    torch.testing.assert_close(states(), both)
    assert not torch.allclose(both, alone, atol=1e-3) and not torch.allclose(both, ours, atol=1e-3)
    attached(pipe).remove_all()
    torch.testing.assert_close(states(), alone)


def test_a_scale_that_only_settings_tell(tmp_path):
    """peft's alpha for a text encoder stands beside the tensors; the dictionary's file has it in the numbers."""
    import json

    pipe = tiny("sd15")
    rank = {"r": 3, "lora_alpha": 6}
    settings = {f"{part}.{key}": value for part in ("unet", "text_encoder") for key, value in rank.items()}
    path = lora_file(pipe, tmp_path / "lora.safetensors", "diffusers", lora_adapter_metadata=json.dumps(settings))
    adapter = dictionary(pipe, path, tmp_path)
    from safetensors.torch import load_file

    stored = load_file(str(path))
    for key, tensor in adapter.aside.items():
        torch.testing.assert_close(tensor, stored[key] * (2.0 if "lora_B" in key else 1.0))


def test_what_cannot_be_applied_is_said(tmp_path):
    pipe = tiny("sd15")
    adapter = dictionary(pipe, lora_file(pipe, tmp_path / "lora.safetensors"), tmp_path)
    with pytest.warns(UserWarning, match="attach it to the pipeline"):
        adapter.attach(pipe.unet, name="alone").detach()
    adapter.attach(pipe, name="zorp")
    with pytest.raises(SiteError, match="cannot be exchanged"):
        attached(pipe).exchange("zorp", adapter)
    attached(pipe).remove_all()
    adapter.aside = {key.replace("layers_0", "layers_7"): tensor for key, tensor in adapter.aside.items()}
    with pytest.warns(UserWarning, match="layers of text encoders"):
        adapter.attach(pipe)
    with pytest.warns(UserWarning, match="strength of the whole"):
        compose([("a", adapter, 0.5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attached(pipe).remove_all()


def test_on_the_command_line(tmp_path):
    """A caption means something else while the adapter is there, and what it means then is not kept."""
    from sparsedict.cli.sampling import AdapterSpec, attached
    from sparsedict.trainer.backends import open_backend

    folder = tiny_pipelines.save_tiny("sd15", tmp_path / "base")
    backend = open_backend(str(folder), "cpu", torch.float32)
    backend.keep_encodings(tmp_path)
    pipe = type(backend.pipeline).from_pretrained(str(folder), safety_checker=None)
    path = lora_file(pipe, tmp_path / "lora.safetensors")
    dictionary(pipe, path, tmp_path)
    before = backend.encode_captions([PROMPT])["context"]
    pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    theirs = pipe.encode_prompt(PROMPT, torch.device("cpu"), 1, False)[0].detach()
    with attached(backend, [AdapterSpec("zorp", tmp_path / "dictionary.safetensors")]) as [(_, _, attachment)]:
        torch.testing.assert_close(backend.encode_captions([PROMPT])["context"], theirs)
        attachment.enabled = False  # as for the base's picture of a comparison
        assert torch.equal(backend.encode_captions([PROMPT])["context"], before)
    assert torch.equal(backend.encode_captions([PROMPT])["context"], before)
