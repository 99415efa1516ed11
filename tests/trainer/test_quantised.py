"""A base in fewer bits, by the real quantisers on tiny pipelines of the real classes: what it takes, how it trains, whose file its is."""

from __future__ import annotations

import warnings

import pytest
import torch

from sparsedict.cli.common import open_model
from sparsedict.sparsedict_core import file_format
from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site_discovery import discover_sites
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train
from sparsedict.trainer.backends import open_backend, quantised
from sparsedict.trainer.backends.placement import weight_bytes
from sparsedict.trainer.policy import parameter_count, weights_of

pytest.importorskip("torchao")
gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def write_gguf(path, model):
    """As converters write it: matrices in 8 bits where their rows divide into blocks of 32, the rest as it is."""
    writer = gguf.GGUFWriter(str(path), "flux")
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if values.ndim == 2 and values.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def opened(folder, weights):
    if weights != "gguf":
        return open_backend(folder, weights=weights)
    file = folder / "tiny-Q8_0.gguf"
    return open_backend(file if file.exists() else write_gguf(file, open_backend(folder).denoiser))


def trained(backend, path, **more):
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    config = TrainConfig(
        out=path, steps=2, batch_size=2, atoms=16, rank=4, resolution=16, quiet_samples=0, warmup_steps=0, learning_rate=0.1, **more,
    )  # fmt: skip
    result = train(config, backend, ConceptData.from_tensors(list(pictures), [["a zorp"], ["a zorp at night"]]), Callbacks())
    assert all(torch.isfinite(torch.tensor(entry["loss"])) for entry in result.log)
    return file_format.load(path)


def fresh_adapter(backend):
    sites = discover_sites(backend.denoiser).sites
    metadata = {"base_family": backend.family, "base_fingerprint": backend.fingerprint()}
    return SparseAdapter.create(backend.denoiser, sites, AdapterConfig(atoms=4, rank=2), backend.component, metadata=metadata)


def picture(backend):
    noise = torch.randn(1, backend.latent_channels, 8, 8, generator=torch.Generator().manual_seed(4))
    return backend.sample(["a zorp"], noise, 1, 1.0)


@pytest.mark.parametrize(("name", "weights"), [("flux", "int8"), ("sdxl", "fp8"), ("flux", "gguf")])
def test_trains_saves_loads_prunes_and_attaches(folder, tmp_path, name, weights):
    plain, backend = open_backend(folder(name)), opened(folder(name), weights)
    assert weight_bytes(backend.denoiser) < 0.75 * weight_bytes(plain.denoiser)
    assert parameter_count(backend.denoiser) == parameter_count(plain.denoiser) == sum(p.numel() for p in plain.denoiser.parameters())
    assert weights_of(backend) == ("int8" if weights == "gguf" else weights)
    base = picture(backend)
    torch.testing.assert_close(base, picture(plain), rtol=0.1, atol=0.1)
    if weights != "gguf":  # a GGUF file is a denoiser's
        assert weight_bytes(backend.pipeline.text_encoder) < 0.9 * weight_bytes(plain.pipeline.text_encoder)
    adapter = trained(backend, tmp_path / "a.safetensors", gradient_checkpointing=name == "flux")
    half = prune(adapter, select(adapter, Selection(keep=0.5)))
    assert half.atom_count < adapter.atom_count
    for kept in (adapter, half):
        with kept.attach(backend.pipeline):
            changed = picture(backend)
        with kept.attach(backend.pipeline, strength=0.0):
            assert torch.equal(picture(backend), base)
        assert not torch.equal(changed, base) and changed.isfinite().all()
    with adapter.attach(plain.pipeline):
        assert picture(plain).isfinite().all()


def test_a_large_family_in_int8(folder, tmp_path):
    trained(open_backend(folder("z_image"), weights="int8"), tmp_path / "a.safetensors")


def test_a_pipeline_that_a_program_has_quantised_is_trained_on_and_given_back(folder, tmp_path):
    backend = open_backend(folder("flux"), weights="int8")
    backend.encode_captions(["a"])  # which loads the text encoders
    pipeline = backend.pipeline
    before = {name: type(parameter) for name, parameter in pipeline.transformer.named_parameters()}
    trained(pipeline, tmp_path / "a.safetensors")
    assert {name: type(parameter) for name, parameter in pipeline.transformer.named_parameters()} == before


@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_fingerprints_tell_quantised_bases_apart(folder, weights):
    one, same, other = (open_backend(folder("flux", seed=seed), weights=weights).fingerprint() for seed in (0, 0, 1))
    assert one == same != other
    assert one.split("-")[1:] == other.split("-")[1:] != open_backend(folder("flux")).fingerprint().split("-")[1:]


def test_precisions_of_one_base_are_no_news_but_another_base_is(folder):
    plain, small = open_backend(folder("flux")), open_backend(folder("flux"), weights="int8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh_adapter(plain).attach(small.pipeline).detach()
        fresh_adapter(small).attach(small.pipeline).detach()
    with pytest.warns(UserWarning, match="another model of this family"):
        fresh_adapter(open_backend(folder("flux", seed=1), weights="int8")).attach(small.pipeline)


def test_the_command_line_has_them_as_dtypes(folder, monkeypatch):
    backend = open_model(str(folder("flux")), "cpu", "int8")
    assert backend.weights == "int8" and backend.dtype == torch.float32
    with pytest.raises(SparseDictError, match=r"NVIDIA GPU.*--dtype int8|pip install bitsandbytes"):
        open_model(str(folder("flux")), "cpu", "nf4")
    with pytest.raises(SparseDictError, match=r"demo base is small.*leave int8 weights out"):
        open_model("demo", "cpu", "int8")


def test_what_is_missing_is_said_in_one_sentence(folder, tmp_path, monkeypatch):
    alone = write_gguf(tmp_path / "a.gguf", torch.nn.Linear(32, 2))
    with pytest.raises(SparseDictError, match=r"a\.gguf holds the denoiser alone; put it into the diffusers folder"):
        open_backend(alone)
    with pytest.raises(SparseDictError, match=r"single file.*leave int8 out"):
        open_backend(alone.rename(folder("flux") / "b.gguf"), weights="int8")
    with pytest.raises(SparseDictError, match=r"b\.gguf cannot be loaded as the FluxTransformer2DModel"):
        open_backend(folder("flux") / "b.gguf")
    monkeypatch.setattr(quantised, "find_spec", lambda package: None)
    with pytest.raises(SparseDictError, match="int8 needs the package torchao, which is not installed; pip install torchao"):
        open_backend(folder("flux"), weights="int8")
