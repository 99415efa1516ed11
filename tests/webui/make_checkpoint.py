"""A small random SD1.5 checkpoint, made with a web UI's own classes and Python: python make_checkpoint.py HOST OUT

AUTOMATIC1111 takes any size by a .yaml of the same name. The Forges know models by their widths, so theirs has SD1.5's, its
text encoder and its autoencoder: 0.5 GB. What a Forge has made is fit for every other host too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

host, out = Path(sys.argv[1]), Path(sys.argv[2])
clip = out / "tiny-clip"
out.mkdir(parents=True, exist_ok=True)


def byte_letters() -> list[str]:
    """The 256 characters that byte-level BPE writes bytes as."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(rest))]


def make_tokenizer() -> None:
    clip.mkdir(exist_ok=True)
    letters = byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (clip / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (clip / "merges.txt").write_text("#version: 0.2\n")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (clip / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **ends}))


def make_a1111() -> dict[str, torch.Tensor]:
    sys.path[:0] = [str(host / "repositories/stable-diffusion-stability-ai"), str(host)]
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf
    from transformers import CLIPTextConfig, CLIPTextModel

    make_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPTextConfig(vocab_size=514, max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=513, **shape)
    CLIPTextModel(config).save_pretrained(clip, safe_serialization=True)
    text = (host / "configs/v1-inference.yaml").read_text()
    encoder = "target: ldm.modules.encoders.modules.FrozenCLIPEmbedder"
    changes = {"model_channels: 320": "model_channels: 32", "num_heads: 8": "num_heads: 2", "context_dim: 768": "context_dim: 32", "ch: 128": "ch: 32"}
    for old, new in {**changes, encoder: f"{encoder}\n      params:\n        version: {clip}"}.items():
        text = text.replace(old, new)
    (out / "tiny.yaml").write_text(text)
    return instantiate_from_config(OmegaConf.load(out / "tiny.yaml").model).state_dict()


def make_forge() -> dict[str, torch.Tensor]:
    neo = (host / "modules_forge/packages").is_dir()
    sys.path[:0] = [str(host), str(host / ("modules_forge/packages" if neo else "packages_3rdparty"))]
    sys.argv = ["make_checkpoint.py", "--cpu" if neo else "--always-cpu"]
    from backend.nn.unet import IntegratedUNet2DConditionModel
    from backend.nn.vae import IntegratedAutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    files = host / "backend/huggingface/runwayml/stable-diffusion-v1-5"
    depths = {"transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1}
    shape = {"in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [1, 1], "channel_mult": [1, 1]}
    unet = IntegratedUNet2DConditionModel(**shape, **depths, use_spatial_transformer=True, context_dim=768, num_heads=8)
    vae = IntegratedAutoencoderKL.from_config(IntegratedAutoencoderKL.load_config(files / "vae"))
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(files / "text_encoder"))
    with torch.no_grad():
        text.text_model.final_layer_norm.bias.normal_(0.1, 0.5)  # Forge divides by the mean of what it gives, which a fresh norm makes 0
        for tensor in (*unet.parameters(), *vae.parameters()):
            if tensor.ndim > 1:
                tensor *= 3**0.5  # else a random picture is all but grey, and an adapter below one level of it
    parts = {"model.diffusion_model.": unet, "first_stage_model.": vae, "cond_stage_model.transformer.": text}
    return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}


def main() -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = make_forge() if (host / "modules_forge").is_dir() else make_a1111()
    for name, tensor in state.items():
        # What starts at zero would draw the same picture with and without an adapter.
        noise = torch.randn_like(tensor) * 0.05 if tensor.ndim > 1 and not bool(tensor.any()) else tensor
        state[name] = noise.half().contiguous() if noise.dtype == torch.float32 else noise.contiguous()
    save_file(state, str(out / "tiny.safetensors"))


if __name__ == "__main__":
    main()
