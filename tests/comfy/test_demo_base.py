"""The embedded base in the host gives DemoPipeline's pictures, through the host's own sampler, text and picture nodes."""

from __future__ import annotations

import pytest
import torch

from sparsedict.demo_model.pipeline import DemoPipeline
from sparsedict.demo_model.vocabulary import UnknownWordError

CAPTIONS = ["a small flat fox top left on forest", "a large glossy star on sand"]


@pytest.fixture(scope="module")
def parts(comfy):
    from sparsedict.comfyui_host import demo_base

    with torch.inference_mode():
        return demo_base.load_model(), demo_base.load_clip(), demo_base.load_vae()


@pytest.fixture(scope="module")
def pipeline():
    torch.set_num_threads(1)
    return DemoPipeline.load()


def sample(parts, caption, seed, steps=16, guidance=3.5, scheduler="simple", rows=1):
    import nodes
    from sparsedict.comfyui_host.demo_base import empty_latent

    model, clip, _ = parts
    with torch.inference_mode():
        positive, negative = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in (caption, ""))
        return nodes.common_ksampler(model, seed, steps, guidance, "euler", scheduler, positive, negative, empty_latent(rows))[0]["samples"]


@pytest.mark.parametrize("steps", [16, 20])
def test_pictures_equal_the_pipelines(parts, pipeline, steps):
    """At 16 steps the scheduler's noise levels, in thousandths, differ by up to 0.0005 from the pipeline's."""
    for seed, caption in enumerate(CAPTIONS):
        ours = pipeline.generate([caption], seed=seed, steps=steps)
        with torch.inference_mode():
            theirs = parts[2].decode(sample(parts, caption, seed, steps)).movedim(-1, 1) * 2 - 1
        assert theirs.shape == ours.shape
        error = (theirs - ours).abs()
        assert error.max() < (0.05 if steps == 16 else 1e-3) and error.mean() < (1e-3 if steps == 16 else 1e-4)


def test_texts_are_the_word_encoders(parts, pipeline):
    context, pooled = pipeline.encode_captions(CAPTIONS[:1])
    tokens = parts[1].tokenize(CAPTIONS[0])
    cond, also = parts[1].encode_from_tokens(tokens, return_pooled=True)
    assert torch.equal(cond, context) and torch.equal(also, pooled)


def test_an_unknown_word_is_refused_in_the_vocabularys_own_sentence(parts):
    import nodes

    with pytest.raises(UnknownWordError, match=r"does not know the word 'skyscraper' in \"a skyscraper\""):
        nodes.CLIPTextEncode().encode(parts[1], "a skyscraper")


def test_pictures_go_through_the_vae_and_back(parts, pipeline):
    picture = pipeline.generate(CAPTIONS, seed=0)
    with torch.inference_mode():
        image = ((picture + 1) / 2).movedim(1, -1)
        latents = parts[2].encode(image)
        assert torch.allclose(latents, pipeline.codec.encode(picture), atol=1e-5)
        assert (parts[2].decode(latents) - image).abs().mean() < 0.03
        assert (parts[2].decode_tiled(latents) - image).abs().mean() < 0.03
        assert parts[2].encode(image[:, :95, :94]).shape[-2:] == (15, 15)


def test_the_position_table_is_diffusers_own(comfy):
    from sparsedict.comfyui_host.demo_base import position_table
    from sparsedict.demo_model.architecture import build_transformer

    assert torch.allclose(position_table(256, 8), build_transformer().pos_embed.pos_embed[0].float(), atol=1e-6)


def test_previews_show_the_mean_colours(parts, pipeline):
    import latent_preview

    form = parts[0].model.latent_format
    previewer = latent_preview.Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias)
    picture = pipeline.generate(CAPTIONS[:1], seed=0)
    preview = previewer.decode_latent_to_preview(pipeline.codec.encode(picture))
    shown = torch.tensor(list(preview.tobytes())).view(16, 16, 3) / 255
    meant = (torch.nn.functional.avg_pool2d(picture, 6)[0].movedim(0, -1) + 1) / 2
    assert preview.size == (16, 16) and (shown - meant).abs().mean() < 0.02


def test_two_loads_share_nothing_and_give_the_same(parts):
    from sparsedict.comfyui_host import demo_base

    first = sample(parts, CAPTIONS[0], 5, steps=4)
    other = (demo_base.load_model(), parts[1], parts[2])
    assert other[0].model is not parts[0].model
    assert torch.equal(first, sample(other, CAPTIONS[0], 5, steps=4))
