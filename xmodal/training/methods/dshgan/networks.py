"""The networks of DSH-GANs: three streams behind the towers' first layers, and the generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from xmodal.device import mixed
from xmodal.towers import Thumbnail
from xmodal.training import pairs as sampling
from xmodal.training.methods.dshgan.config import Config
from xmodal.training.objective import HashNetwork
from xmodal.training.run import TrainingData

ENOUGH = 2000
"""Pairs that tell the mean and the spread of features."""

LENGTH = 4.0
"""Of each half of a pair as the adversary sees it, so that its rate suits features of any width."""
AXES = 64
"""Principal components of features that the adversary looks at."""

Two = tuple[torch.Tensor, torch.Tensor]
"""Something of the images, the same of the texts."""


@dataclass(frozen=True)
class Seen:
    """Some pairs as the hash network sees them: what feeds all streams, and codes (n, K)."""

    vectors: Two
    codes: Two

    def first(self, n: int) -> Seen:
        """The first n, as facts: no gradient passes."""
        (a, b), (u, v) = self.vectors, self.codes
        return Seen((a[:n].detach(), b[:n].detach()), (u[:n].detach(), v[:n].detach()))


class Streams(HashNetwork):
    """The hash stream, and the classification stream: the codewords."""

    def see(self, image: torch.Tensor, text: torch.Tensor) -> Seen:
        """Features (n, d_image), (n, d_text) -> what both towers make of them."""
        vectors = self.towers.image.vectors(image), self.towers.text.vectors(text)
        u, v = self.towers.image.head(vectors[0]), self.towers.text.head(vectors[1])
        return Seen(vectors, (torch.tanh(u), torch.tanh(v)))


class Components(nn.Module):
    """The first principal components of features: rows around 0, about as long as LENGTH.

    What is beyond them nobody can make, and telling by that teaches nothing.
    """

    def __init__(self, real: torch.Tensor) -> None:
        super().__init__()
        mean = real.mean(0)
        _, size, axes = torch.svd_lowrank(real - mean, q=min(AXES, *real.shape), niter=4)
        length = (size.square().sum() / len(real)).sqrt().clamp(min=1e-3)
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes * (LENGTH / length))

    @property
    def width(self) -> int:
        """How many there are."""
        return self.get_buffer("axes").shape[1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n, width)."""
        out: torch.Tensor = (features - self.get_buffer("mean")) @ self.get_buffer("axes")
        return out


class Level(nn.Module):
    """Each row of mean 0 and as long as LENGTH: for what changes while training."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n, d)."""
        width = vectors.shape[1]
        return functional.layer_norm(vectors, (width,)) * (LENGTH / math.sqrt(width))


class Adversary(nn.Module):
    """The stream that tells real from synthetic: s(image, text | condition) > 0 says real.

    s = w . f + f . Vc of units f that see both halves together (Miyato, Koyama, ICLR 2018, eq. 3).
    """

    def __init__(self, data: TrainingData, width: int, config: Config, units: int = 256) -> None:
        super().__init__()
        some = _some(data)
        self.text = Components(some.text.float())
        self.image: nn.Module = Level()  # what the small network says of pictures changes
        if not data.raw_images:
            self.image = Components(some.image.float())
            width = self.image.width
        self.width = width + self.text.width
        self.layers = nn.Sequential(
            nn.Linear(self.width, units),
            nn.LeakyReLU(0.2),
            nn.Linear(units, units),
            nn.LeakyReLU(0.2),
        )
        self.last = nn.Linear(units, 1)
        self.condition = _reading(data, config, units)

    def both(self, vectors: Two) -> torch.Tensor:
        """Both halves as it sees them, (n, width)."""
        return torch.cat([self.image(vectors[0]), self.text(vectors[1])], dim=1)

    def forward(self, both: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """(n, width), conditions (n, w) -> scores (n,)."""
        units = self.layers(both)
        fit = (units * self.condition(conditions)).sum(1)
        out: torch.Tensor = self.last(units).squeeze(1) + fit
        return out


class FeatureHead(nn.Module):
    """Latents (n, latent) -> features (n, d): mean + spread * (Wx + b), never below the least."""

    def __init__(self, latent: int, real: torch.Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(latent, real.shape[1])
        self.register_buffer("mean", real.mean(0))
        self.register_buffer("spread", real.std(0, correction=0))
        self.register_buffer("least", real.amin(0))
        self.register_buffer("variance", _variance(real))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """What the class says."""
        features = self.get_buffer("mean") + self.get_buffer("spread") * self.linear(latent)
        return torch.maximum(features, self.get_buffer("least"))


class PictureHead(nn.Module):
    """Latents (n, latent) -> flat pictures (n, 64 * 64 * 3) in 0..255, as DCGAN makes them.

    Radford, Metz, Chintala, ICLR 2016. It starts from the mean of the real pictures.
    """

    def __init__(self, latent: int, real: torch.Tensor) -> None:
        super().__init__()
        self.first = nn.Linear(latent, 96 * 4 * 4)
        layers: list[nn.Module] = [nn.BatchNorm2d(96), nn.ReLU()]
        for width, after in ((96, 64), (64, 32), (32, 16)):
            layers += [nn.ConvTranspose2d(width, after, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1))
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        mean = (real.mean(0) / 255).clamp(0.01, 0.99).view(64, 64, 3)
        self.register_buffer("start", torch.logit(mean))
        self.register_buffer("variance", _variance(real))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """What the class says."""
        first = self.first(latent).view(-1, 96, 4, 4)
        with mixed(latent.device, self.training):
            maps = self.layers(first.contiguous(memory_format=torch.channels_last)).float()
        squares = 255 * torch.sigmoid(maps.permute(0, 2, 3, 1) + self.get_buffer("start"))
        return squares.flatten(1)


class Inference(nn.Module):
    """q(z | real pair, condition), a normal distribution: which noise would have made a pair.

    It looks at principal components, of pixels those of their thumbnails: what does not change
    while the streams learn.
    """

    def __init__(self, data: TrainingData, config: Config, units: int = 256) -> None:
        super().__init__()
        some = _some(data)
        self.sight: nn.Module = Thumbnail() if data.raw_images else nn.Identity()
        self.image = Components(self.sight(some.image).float())
        self.text = Components(some.text.float())
        self.condition = _reading(data, config, units)
        self.pair = nn.Linear(self.image.width + self.text.width, units)
        self.last = nn.Sequential(nn.GELU(), nn.Linear(units, 2 * config.noise))

    def forward(self, real: Two, conditions: torch.Tensor) -> Two:
        """Pairs (n, d_image), (n, d_text), conditions (n, w) -> mean and log variance of z."""
        seen = self.image(self.sight(real[0]).float()), self.text(real[1].float())
        units = self.pair(torch.cat(seen, dim=1)) + self.condition(conditions)
        mean, log_variance = self.last(units).chunk(2, 1)
        return mean, log_variance.clamp(-8, 8)


class Generator(nn.Module):
    """G(z, condition): an image and a text out of one latent."""

    def __init__(self, data: TrainingData, config: Config) -> None:
        super().__init__()
        self.noise, latent, some = config.noise, config.latent, _some(data)
        self.condition = _reading(data, config, latent)
        self.layers = nn.Sequential(
            nn.Linear(latent + config.noise, latent),
            nn.LayerNorm(latent),
            nn.GELU(),
            nn.Linear(latent, latent),
            nn.LayerNorm(latent),
            nn.GELU(),
        )
        head = PictureHead if data.raw_images else FeatureHead
        self.image: FeatureHead | PictureHead = head(latent, some.image.float())
        self.text = FeatureHead(latent, some.text.float())

    def forward(self, conditions: torch.Tensor, z: torch.Tensor) -> Two:
        """Conditions (n, w) and noise (n, noise) -> features of n synthetic pairs."""
        latent = self.layers(torch.cat([self.condition(conditions), z], dim=1))
        return self.image(latent), self.text(latent)

    def draw(self, conditions: torch.Tensor) -> Two:
        """One synthetic pair for each condition."""
        z = torch.randn(len(conditions), self.noise, device=conditions.device)
        image, text = self(conditions, z)
        return image, text


def _variance(real: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of rows from their mean."""
    return real.var(0, correction=0).sum().clamp(min=1e-6)


def _some(data: TrainingData) -> sampling.Pairs:
    return data.train.take(sampling.even_choice(len(data.train), ENOUGH))


def _reading(data: TrainingData, config: Config, units: int) -> nn.Module:
    """Layers that read a condition: one embedding a label, summed; or a text."""
    if config.condition == "text":
        width = data.train.text.shape[1]
        return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, units))
    embedding = nn.Linear(data.classes, units)
    nn.init.normal_(embedding.weight)
    return embedding
