"""What is encoded once: found again by content and model, so that a later run loads no text encoder; and where encoders are meanwhile."""

from __future__ import annotations

import pytest
import torch
from tiny_pipelines import PIPELINES, SIDE, save_tiny
from torch import nn

from sparsedict.trainer import samples_cache
from sparsedict.trainer.backends import placement
from sparsedict.trainer.backends.encodings import Encodings, identity_of
from sparsedict.trainer.backends.open_diffusers import open_diffusers

CAPTIONS = ["a red zorp", "blue", "a red zorp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny("sdxl", tmp_path_factory.mktemp("model"))


def test_a_later_run_loads_no_text_encoder(folder, tmp_path):
    pictures = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first = open_diffusers(folder)
    assert first.pipeline.text_encoder is None
    first.keep_encodings(tmp_path)
    captions, latents = first.encode_captions(CAPTIONS), first.encode_images(pictures)
    assert first.pipeline.text_encoder is not None and first.pipeline.text_encoder_2 is not None
    assert len(list(tmp_path.glob("encoded-*.safetensors"))) == 4  # two captions, two pictures

    later = open_diffusers(folder)
    later.keep_encodings(tmp_path)
    later.vae = None  # not asked either
    again = later.encode_captions(CAPTIONS[::-1])
    assert later.pipeline.text_encoder is None and later.pipeline.text_encoder_2 is None
    assert all(torch.equal(again[name], value.flip(0)) for name, value in captions.items())
    assert torch.equal(later.encode_images(pictures), latents)


@pytest.mark.parametrize("name", PIPELINES)
def test_text_encoders_load_when_a_caption_needs_them(tmp_path, name):
    backend = open_diffusers(save_tiny(name, tmp_path))
    assert backend.pipeline.text_encoder is None
    backend.encode_captions(["a"])
    parts = backend._text_encoders()
    assert parts and not any(part.training or any(p.requires_grad for p in part.parameters()) for part in parts)


def test_another_model_another_dtype_and_other_words_are_other_encodings(folder, tmp_path):
    def names(backend, captions):
        backend.keep_encodings(tmp_path)
        before = set(tmp_path.iterdir())
        backend.encode_captions(captions)
        return len(set(tmp_path.iterdir()) - before)

    assert names(open_diffusers(folder), ["a"]) == 1
    assert names(open_diffusers(folder), ["a", "b"]) == 1
    assert names(open_diffusers(folder, dtype=torch.bfloat16), ["a"]) == 1
    assert names(open_diffusers(save_tiny("sdxl", tmp_path.parent / "other", seed=5)), ["a"]) == 1


def test_a_damaged_file_is_made_anew(tmp_path):
    def kept():
        encodings = Encodings("model")
        encodings.folder = tmp_path
        return encodings

    made = []

    def make(places):
        made.append(places)
        return {"x": torch.arange(len(places)).float()[:, None]}

    assert kept().rows("caption", [b"a", b"b"], make)["x"].flatten().tolist() == [0, 1]
    for file in tmp_path.iterdir():
        file.write_bytes(b"nonsense")
    assert kept().rows("caption", [b"b"], make)["x"].flatten().tolist() == [0]
    assert made == [[0, 1], [0]]
    assert kept().rows("picture", [b"b"], make) is not None and made == [[0, 1], [0], [0]]


def test_encodings_count_to_the_cache_and_leave_first_when_unused(tmp_path):
    encodings = Encodings("model")
    encodings.folder = tmp_path
    encodings.rows("caption", [b"a"], lambda places: {"x": torch.zeros(1, 1000)})
    (tmp_path / "concept-a.safetensors").write_bytes(b"a user's own")
    assert samples_cache.trim(tmp_path, 0) > 4000
    assert [path.name for path in tmp_path.iterdir()] == ["concept-a.safetensors"]


def test_identity_is_of_contents_and_not_of_places(tmp_path):
    for name, content in (("one", b"x" * 100), ("two", b"x" * 100), ("three", b"x" * 99 + b"y")):
        (tmp_path / name / "text_encoder").mkdir(parents=True)
        (tmp_path / name / "text_encoder" / "model.safetensors").write_bytes(content)
    one, two, three = (identity_of([tmp_path / name / "text_encoder"]) for name in ("one", "two", "three"))
    assert one == two != three


class Traveller(nn.Linear):
    """Counts as on the device that it was last sent to; a test has one device only."""

    def __init__(self):
        super().__init__(4, 4)
        self.places = []

    def to(self, device):
        self.places.append(str(device))
        return self


@pytest.mark.parametrize("free", [1e9, 0])
def test_encoders_leave_when_the_denoiser_computes(monkeypatch, free):
    room = [1e9]  # enough for the denoiser as a whole
    monkeypatch.setattr(placement.Placement, "_free", lambda self: room[0])
    monkeypatch.setattr(placement.Placement, "_total", lambda self: 1e9)
    monkeypatch.setattr(placement.Placement, "_empty_cache", lambda self: None)
    denoiser, encoder = Traveller(), Traveller()
    placed = placement.Placement(denoiser, torch.device("cuda"))
    room[0] = free
    for _ in range(2):
        with placed.visit(encoder) as device:
            assert device.type == "cuda"
    crowded = free == 0
    assert encoder.places == (["cuda", "cpu"] * 2 if crowded else ["cuda"])
    denoiser(torch.zeros(1, 4))
    assert encoder.places[-1] == "cpu"
    assert denoiser.places == (["cuda"] + ["cpu", "cuda"] * 2 if crowded else ["cuda"])


def test_what_the_device_can_never_hold_stays_on_the_cpu(monkeypatch):
    monkeypatch.setattr(placement.Placement, "_free", lambda self: 1e9)
    monkeypatch.setattr(placement.Placement, "_total", lambda self: 10)
    encoder = Traveller()
    with placement.Placement(Traveller(), torch.device("cuda")).visit(encoder) as device:
        assert device.type == "cpu" and encoder.places == []
