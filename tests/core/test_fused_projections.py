"""q, k and v of a fused Linear: seen by data flow, three sites on three slices, which do what they do on three Linears."""

from __future__ import annotations

import pytest
import torch
from core.newer_denoisers import NEWER, TIME, r
from core.tiny_denoisers import DENOISERS, shaken
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.data_flow import follow
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site_discovery import discover_sites

WIDTH, HEADS, GROUPS = 16, 4, 2
HEAD = WIDTH // HEADS
THIRDS = {"q": (0, 16), "k": (16, 32), "v": (32, 48)}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def heads(x, count=HEADS):
    return x.unflatten(-1, (count, HEAD)).transpose(1, 2)


# -- how models take q, k and v out of one Linear


def chunked(qkv):
    return map(heads, qkv.chunk(3, -1))


def unbound(qkv):
    return qkv.unflatten(-1, (3, HEADS, HEAD)).permute(2, 0, 3, 1, 4).unbind()


def turned_and_normed(qkv):
    q, k, v = chunked(qkv)
    q, k = (nn.functional.layer_norm(t, (HEAD,)) for t in (q, k))
    return *(torch.cat([-t[..., HEAD // 2 :], t[..., : HEAD // 2]], -1) + t for t in (q, k)), v


def cast_before(qkv):
    return chunked((qkv.double() * 2 + 1).float())


def joined_before(qkv):
    return chunked(torch.cat([qkv, qkv * 2], 1))


def grouped(qkv):
    q, k, v = qkv.split((WIDTH, GROUPS * HEAD, GROUPS * HEAD), -1)
    return heads(q), *(heads(t, GROUPS).repeat_interleave(HEADS // GROUPS, 1) for t in (k, v))


def grouped_by_view(qkv):
    t = qkv.unflatten(-1, (HEADS + 2 * GROUPS, HEAD)).transpose(1, 2)
    k, v = t[:, HEADS : HEADS + GROUPS], t[:, HEADS + GROUPS :]
    return t[:, :HEADS], *(x[:, :, None].expand(-1, -1, HEADS // GROUPS, -1, -1).flatten(1, 2) for x in (k, v))


def head_by_head(qkv):
    return qkv.unflatten(-1, (HEADS, 3 * HEAD)).transpose(1, 2).chunk(3, -1)


def with_more(qkv):
    return chunked(qkv[..., 2 * WIDTH :])


def mixed(qkv):
    return chunked(qkv[..., torch.arange(3 * WIDTH).flip(0)])


FORMS = [
    (chunked, 3 * WIDTH, THIRDS),
    (unbound, 3 * WIDTH, THIRDS),
    (turned_and_normed, 3 * WIDTH, THIRDS),
    (cast_before, 3 * WIDTH, THIRDS),
    (joined_before, 3 * WIDTH, THIRDS),
    (grouped, 32, {"q": (0, 16), "k": (16, 24), "v": (24, 32)}),
    (grouped_by_view, 32, {"q": (0, 16), "k": (16, 24), "v": (24, 32)}),
    (with_more, 5 * WIDTH, {"q": (32, 48), "k": (48, 64), "v": (64, 80)}),
    (head_by_head, 3 * WIDTH, None),  # no slices: each head has its own q, k and v
    (mixed, 3 * WIDTH, None),
]


class Block(nn.Module):
    def __init__(self, split, channels):
        super().__init__()
        self.split, self.qkv, self.proj = split, nn.Linear(WIDTH, channels), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.split(self.qkv(x))
        attended = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.proj(attended[:, : x.shape[1]])


class Model(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize(("split", "channels", "slices"), FORMS, ids=[form[0].__name__ for form in FORMS])
def test_slices_of_a_fused_linear(split, channels, slices):
    model, x = Model(Block(split, channels), Block(split, channels)), r(2, 5, WIDTH)
    expected = {} if slices is None else {f"blocks.{i}.qkv": slices for i in (0, 1)}
    assert follow(model, (x,)).inputs == expected
    names = [name for name in discover_sites(model, "all", lambda: model(x)).sites if name.layer == 1]
    if slices is None:
        assert [(name.stream, name.rows) for name in names] == [("qkv", None), (None, None)]
    else:
        assert {name.stream: name.rows for name in names if name.stream in ("q", "k", "v")} == slices
        assert sum(name.rows[1] - name.rows[0] for name in names if name.rows) == channels, "every channel is in one site"


class Separate(nn.Module):
    """The same attention with a Linear for each of q, k and v."""

    def __init__(self, block):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        for linear, (start, stop) in zip((self.to_q, self.to_k, self.to_v), THIRDS.values(), strict=True):
            linear.weight.data, linear.bias.data = block.qkv.weight.data[start:stop], block.qkv.bias.data[start:stop]
        self.proj = block.proj

    def forward(self, x):
        q, k, v = map(heads, (self.to_q(x), self.to_k(x), self.to_v(x)))
        return x + self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def whole_numbers(model):
    """Weights whose products are exact, so that one large product has the bits of three small ones."""
    for parameter in model.parameters():
        parameter.data.copy_(torch.randint(-2, 3, parameter.shape))


@pytest.mark.parametrize("grad", [False, True])
def test_three_slices_do_what_three_linears_do(tmp_path, grad):
    """Bit for bit, from the file of one on the other's sites, at every strength; and the identities of slices that were found."""
    fused, x = Model(Block(unbound, 3 * WIDTH)), torch.randint(-3, 4, (2, 5, WIDTH)).float()
    whole_numbers(fused)
    apart = Model(Separate(fused.blocks[0]))
    sites, others = (discover_sites(model, "out,q,k,v", lambda model=model: model(x)).sites for model in (fused, apart))
    assert {site.stream for site in sites} == {site.stream for site in others} == {None, "q", "k", "v"}
    config = AdapterConfig(atoms=8, rank=4, density=0.5)
    one = SparseAdapter.create(fused, sites, config, "transformer")
    two = SparseAdapter.create(apart, others, config, "transformer")
    by_stream = {site.name.stream: site for site in one.sites.values()}
    for site in two.sites.values():
        twin = by_stream[site.name.stream]
        twin.dictionary_basis.data.normal_()
        site.take(twin)
    for adapter in (one, two):
        adapter.requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        base = fused(x)
        assert torch.equal(base, apart(x))
        for strength in (1.0, 0.3, 0.0):
            with one.attach(fused, strength), two.attach(apart, strength):
                assert torch.equal(fused(x), apart(x)) and torch.equal(fused(x), base) == (strength == 0)
        save(one, tmp_path / "a.safetensors", torch.float32)
        loaded = load(tmp_path / "a.safetensors")
        assert [site.name for site in loaded.sites.values()] == sites
        with one.attach(fused):
            full = fused(x)
        with prune(one, select(one, Selection(atoms="L0"))).attach(fused):
            assert torch.equal(fused(x), full)
        with prune(loaded, select(loaded, Selection(top=0))).attach(fused):
            assert torch.equal(fused(x), base)


# -- real models


def joyimage():
    from diffusers import JoyImageEditTransformer3DModel

    model = JoyImageEditTransformer3DModel(
        in_channels=4, out_channels=4, hidden_size=32, num_attention_heads=2, num_layers=2, text_dim=12, rope_dim_list=(4, 6, 6), mlp_width_ratio=2.0,
    )  # fmt: skip
    inputs = {"hidden_states": r(1, 4, 1, 4, 4), "timestep": TIME[:1], "encoder_hidden_states": r(1, 5, 12)}
    return model, inputs, {f"double_blocks.{i}.attn.{s}_attn_qkv": {"q": (0, 32), "k": (32, 64), "v": (64, 96)} for i in (0, 1) for s in ("img", "txt")}


def prx():
    from diffusers import PRXTransformer2DModel

    model = PRXTransformer2DModel(in_channels=4, patch_size=2, context_in_dim=12, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[8, 8])
    inputs = {"hidden_states": r(1, 4, 8, 8), "timestep": TIME[:1], "encoder_hidden_states": r(1, 5, 12)}
    slices = {}
    for i in (0, 1):
        slices[f"blocks.{i}.attention.img_qkv_proj"] = {"q": (0, 32), "k": (32, 64), "v": (64, 96)}
        slices[f"blocks.{i}.attention.txt_kv_proj"] = {"k": (0, 32), "v": (32, 64)}
    return model, inputs, slices


def flux2():
    model, inputs = NEWER["flux2"][0]()
    return model, inputs, {f"single_transformer_blocks.{i}.attn.to_qkv_mlp_proj": {"q": (0, 32), "k": (32, 64), "v": (64, 96)} for i in (0, 1)}


def fused_flux():
    model, inputs = DENOISERS["flux"][0]()
    model.requires_grad_(False).fuse_qkv_projections()
    thirds = {"q": (0, 32), "k": (32, 64), "v": (64, 96)}
    joint = {f"transformer_blocks.{i}.attn.{name}": thirds for i in (0, 1) for name in ("to_qkv", "to_added_qkv")}
    return model, inputs, joint | {f"single_transformer_blocks.{i}.attn.to_qkv": thirds for i in (0, 1)}


def separate_lumina():
    """Grouped heads: k and v have fewer channels than q."""
    model, inputs = DENOISERS["lumina2"][0]()
    return model, inputs, {}


@pytest.mark.parametrize("make", [joyimage, prx, flux2, fused_flux, separate_lumina])
def test_real_models(make):
    model, inputs, slices = make()
    seen = follow(model.eval(), (), inputs)
    assert {path: roles for path, roles in seen.inputs.items() if len(roles) > 1} == slices
    for path, roles in seen.inputs.items():
        if len(roles) == 1:
            assert list(roles.values()) == [(0, model.get_submodule(path).out_features)]
            assert next(iter(roles)) in path.rpartition(".")[2].removeprefix("add_")


@pytest.mark.parametrize("make", [joyimage, prx, flux2, fused_flux])
def test_sites_on_the_slices_of_real_models(make, tmp_path):
    model, inputs, slices = make()
    shaken(model)

    def output():
        return model(**inputs, return_dict=False)[0]

    found = discover_sites(model, "q,k,v", output)
    rows = {path: [site.rows for site in found.sites if site.path == f"transformer.{path}"] for path in slices}
    if make is fused_flux:  # under the names that it has when it isn't fused
        assert not any(rows.values()) and sum(site.path.endswith("to_q") for site in found.sites) == 4
    else:
        assert rows == {path: list(roles.values()) for path, roles in slices.items()}
    adapter = SparseAdapter.create(model, found.sites, AdapterConfig(atoms=6, rank=3, density=0.9), found.component)
    base, optimiser = output(), torch.optim.Adam(adapter.parameters(), 0.02)
    with adapter.attach(model):
        assert torch.equal(output(), base)
        for _ in range(3):
            (output() - base.roll(1)).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
    adapter.requires_grad_(False)
    with torch.no_grad():
        save(adapter, tmp_path / "a.safetensors", torch.float32)
        with adapter.attach(model):
            full = output()
        with load(tmp_path / "a.safetensors").attach(model) as attachment:
            assert torch.allclose(output(), full, atol=1e-5) and not torch.equal(full, base)
            attachment.strength = 0
            assert torch.equal(output(), base)
