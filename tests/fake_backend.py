"""The smallest thing that is a backend to the commands: random weights, 4 × 16 × 16 latents, pictures of 32 pixels, in milliseconds."""

import torch


class Denoiser(torch.nn.Module):
    """Patches of 2 × 2 latents as tokens; each block's Linear is a site."""

    def __init__(self, width=24, layers=3):
        super().__init__()
        self.inwards = torch.nn.Linear(4 * 4 + 1, width)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))
        self.outwards = torch.nn.Linear(width, 4 * 4)

    def forward(self, latents, level, words):
        tokens = torch.nn.functional.unfold(latents, 2, stride=2).transpose(1, 2)
        tokens = torch.cat([tokens, level.view(-1, 1, 1).expand(len(tokens), tokens.shape[1], 1)], dim=-1)
        hidden = self.inwards(tokens) + words.view(-1, 1, 1)
        for block in self.blocks:
            hidden = hidden + torch.tanh(block(hidden))
        return torch.nn.functional.fold(self.outwards(hidden).transpose(1, 2), latents.shape[-2:], 2, stride=2)


class FakeBackend:
    family, component, prediction = "toy", "", "flow"
    latent_scale, size_multiple, default_size, default_guidance, latent_channels = 2, 4, 32, 1.0, 4
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        torch.manual_seed(0)
        self.denoiser = Denoiser().eval().requires_grad_(False)
        self.rgb = torch.randn(3, 4)

    def fingerprint(self):
        return "toy"

    def encode_captions(self, captions):
        return {"words": torch.tensor([float(len(caption)) / 20 for caption in captions])}

    def sample_noise_levels(self, n, generator, latent_size):
        return torch.rand(n, generator=generator)

    def add_noise(self, latents, noise, levels):
        t = levels.view(-1, 1, 1, 1)
        return (1 - t) * latents + t * noise

    def predict(self, noisy, levels, conditioning):
        return self.denoiser(noisy, levels, conditioning["words"])

    def sample(self, captions, noise, steps, guidance, callback=None):
        latents, count, words = noise, steps or 3, self.encode_captions(captions)
        for step in range(count):
            level = torch.full((len(noise),), 1 - step / count)
            latents = latents - self.predict(latents, level, words) / count
        return latents

    def decode(self, latents):
        pixels = torch.einsum("rc,bchw->brhw", self.rgb, latents)
        return torch.tanh(torch.nn.functional.interpolate(pixels, scale_factor=self.latent_scale))
