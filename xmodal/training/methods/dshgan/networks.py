"""The networks of DSH-GANs beside the towers: generator, adversary, inference; conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from xmodal.device import mixed_precision
from xmodal.encoders.towers import Thumbnail
from xmodal.training.methods.dshgan.config import Config
from xmodal.training.objective import ImageText
from xmodal.training.pairs import Pairs, TrainingPairs, even_choice
from xmodal.training.pseudo_labels import PseudoLabels
from xmodal.training.run import TrainingData

MAX_SAMPLED_PAIRS = 200_000
"""Labelled pairs, evenly chosen, whose label sets are conditions of synthetic pairs."""
MAX_STATISTICS_ROWS = 2000
"""Pairs from which means, deviations and principal components of features are computed."""
ROW_NORM = 4.0
"""Typical norm of each input of the adversary, so that its learning rate suits any width."""
MAX_COMPONENTS = 64
"""Principal components of features in the input of the adversary."""


# ---- conditions ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conditions:
    """Conditions of the generator for n queries.

    ``values`` (n, w): labels, or text features. ``classes`` (n, c): their classes, rows sum to 1
    or 0. ``match_probability`` (n, n): probability that query i shares a class with an item that
    is made from condition j.
    """

    values: torch.Tensor
    classes: torch.Tensor
    match_probability: torch.Tensor


class LabelSampler:
    """Samples the label sets of labelled pairs by class, those of ``MAX_SAMPLED_PAIRS`` pairs."""

    def __init__(self, pairs: TrainingPairs) -> None:
        labelled = pairs.labelled.nonzero().flatten()
        few = even_choice(len(labelled), MAX_SAMPLED_PAIRS).to(labelled.device)
        self.labels = pairs.labels[labelled[few]]
        self.rows = (self.labels.T > 0).nonzero()[:, 1]  # sorted by class
        self.counts = (self.labels > 0).sum(0)
        self.starts = self.counts.cumsum(0) - self.counts

    def sample_labels(self, classes: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Sample a class from each distribution (n, c), and the labels of a pair of that class.

        Rows of zeros give rows of zeros.
        """
        cumulative = (classes * (self.counts > 0)).double().cumsum(1)
        u = torch.from_numpy(rng.random((2, len(classes)))).to(cumulative)
        below = cumulative <= u[0, :, None] * cumulative[:, -1:]
        sampled = below.sum(1).clamp(max=classes.shape[1] - 1)
        nth = (u[1] * self.counts[sampled]).long()
        rows = self.rows[(self.starts[sampled] + nth).clamp(max=len(self.rows) - 1)]
        return self.labels[rows] * (cumulative[:, -1:] > 0)


def make_conditions(
    part: Pairs,
    labels: PseudoLabels,
    sampler: LabelSampler,
    config: Config,
    rng: np.random.Generator,
) -> Conditions:
    """Conditions of queries: their labels, sampled labels if unlabelled, or their texts."""
    if config.condition == "text":
        return Conditions(part.text.float(), labels.classes, labels.match_probability)
    sampled = sampler.sample_labels(labels.classes, rng)
    values = torch.where(part.labelled[:, None], part.labels, sampled)
    classes = values / values.sum(1, keepdim=True).clamp(min=1)
    return Conditions(values, classes, (labels.presence @ values.T).clamp(max=1))


# ---- networks --------------------------------------------------------------------------------


class PrincipalComponents(nn.Module):
    """The first principal components of features: centred rows with a norm of about ROW_NORM.

    The other components are left out: the generator cannot make them, so the adversary would use
    them alone.
    """

    def __init__(self, real: torch.Tensor) -> None:
        super().__init__()
        mean = real.mean(0)
        _, size, axes = torch.svd_lowrank(real - mean, q=min(MAX_COMPONENTS, *real.shape), niter=4)
        length = (size.square().sum() / len(real)).sqrt().clamp(min=1e-3)
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes * (ROW_NORM / length))

    @property
    def width(self) -> int:
        """Number of components."""
        return self.get_buffer("axes").shape[1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n, width)."""
        out: torch.Tensor = (features - self.get_buffer("mean")) @ self.get_buffer("axes")
        return out


class RowNormalisation(nn.Module):
    """Rows of mean 0 and norm ROW_NORM, for vectors that change during training."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n, d)."""
        width = vectors.shape[1]
        return functional.layer_norm(vectors, (width,)) * (ROW_NORM / math.sqrt(width))


class Adversary(nn.Module):
    """The stream that scores pairs: s(image, text | condition) > 0 for real ones.

    s = w . f + f . Vc with units f of image and text together (Miyato, Koyama, ICLR 2018, eq. 3).
    """

    def __init__(self, data: TrainingData, width: int, config: Config, units: int = 256) -> None:
        super().__init__()
        some = _statistics_pairs(data)
        self.text = PrincipalComponents(some.text.float())
        self.image: nn.Module = RowNormalisation()  # the image tower's vectors are trained
        if not data.raw_images:
            self.image = PrincipalComponents(some.image.float())
            width = self.image.width
        self.width = width + self.text.width
        self.layers = nn.Sequential(
            nn.Linear(self.width, units),
            nn.LeakyReLU(0.2),
            nn.Linear(units, units),
            nn.LeakyReLU(0.2),
        )
        self.last = nn.Linear(units, 1)
        self.condition = _condition_layers(data, config, units)

    def inputs(self, vectors: ImageText) -> torch.Tensor:
        """Return the rows that are scored, (n, width)."""
        return torch.cat([self.image(vectors[0]), self.text(vectors[1])], dim=1)

    def forward(self, inputs: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """Rows (n, width), conditions (n, w) -> scores (n,)."""
        units = self.layers(inputs)
        conditional = (units * self.condition(conditions)).sum(1)
        out: torch.Tensor = self.last(units).squeeze(1) + conditional
        return out


class FeatureHead(nn.Module):
    """Latents (n, latent) -> features (n, d): mean + deviation * (Wx + b), at least the minimum."""

    def __init__(self, latent: int, real: torch.Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(latent, real.shape[1])
        self.register_buffer("mean", real.mean(0))
        self.register_buffer("deviation", real.std(0, correction=0))
        self.register_buffer("minimum", real.amin(0))
        self.register_buffer("variance", _variance(real))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Latents (n, latent) -> features (n, d)."""
        features = self.get_buffer("mean") + self.get_buffer("deviation") * self.linear(latent)
        return torch.maximum(features, self.get_buffer("minimum"))


class PictureHead(nn.Module):
    """Latents (n, latent) -> flat pictures (n, 64 * 64 * 3) in 0..255, a DCGAN generator.

    Radford, Metz, Chintala, ICLR 2016. The output is relative to the mean of the real pictures.
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
        """Latents (n, latent) -> flat pictures (n, 64 * 64 * 3)."""
        first = self.first(latent).view(-1, 96, 4, 4)
        with mixed_precision(latent.device, self.training):
            maps = self.layers(first.contiguous(memory_format=torch.channels_last)).float()
        squares = 255 * torch.sigmoid(maps.permute(0, 2, 3, 1) + self.get_buffer("start"))
        return squares.flatten(1)


class Inference(nn.Module):
    """q(z | real pair, condition): a normal distribution of the noise that makes a pair.

    Its inputs are principal components, of pixels those of 16 x 16 thumbnails: they do not change
    during training.
    """

    def __init__(self, data: TrainingData, config: Config, units: int = 256) -> None:
        super().__init__()
        some = _statistics_pairs(data)
        self.preprocess: nn.Module = Thumbnail() if data.raw_images else nn.Identity()
        self.image = PrincipalComponents(self.preprocess(some.image).float())
        self.text = PrincipalComponents(some.text.float())
        self.condition = _condition_layers(data, config, units)
        self.pair = nn.Linear(self.image.width + self.text.width, units)
        self.last = nn.Sequential(nn.GELU(), nn.Linear(units, 2 * config.noise))

    def forward(self, real: ImageText, conditions: torch.Tensor) -> ImageText:
        """Pairs (n, d_image), (n, d_text), conditions (n, w) -> mean and log variance of z."""
        inputs = self.image(self.preprocess(real[0]).float()), self.text(real[1].float())
        units = self.pair(torch.cat(inputs, dim=1)) + self.condition(conditions)
        mean, log_variance = self.last(units).chunk(2, 1)
        return mean, log_variance.clamp(-8, 8)


class Generator(nn.Module):
    """G(z, condition): an image and a text from one latent."""

    def __init__(self, data: TrainingData, config: Config) -> None:
        super().__init__()
        self.noise, latent, some = config.noise, config.latent, _statistics_pairs(data)
        self.condition = _condition_layers(data, config, latent)
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

    def forward(self, conditions: torch.Tensor, z: torch.Tensor) -> ImageText:
        """Conditions (n, w) and noise (n, noise) -> features of n synthetic pairs."""
        latent = self.layers(torch.cat([self.condition(conditions), z], dim=1))
        return self.image(latent), self.text(latent)

    def sample(self, conditions: torch.Tensor) -> ImageText:
        """Sample one synthetic pair for each condition (n, w)."""
        z = torch.randn(len(conditions), self.noise, device=conditions.device)
        image, text = self(conditions, z)
        return image, text


def _variance(real: torch.Tensor) -> torch.Tensor:
    """Total variance: mean squared distance of rows from their mean."""
    return real.var(0, correction=0).sum().clamp(min=1e-6)


def _statistics_pairs(data: TrainingData) -> Pairs:
    return data.train.take(even_choice(len(data.train), MAX_STATISTICS_ROWS))


def _condition_layers(data: TrainingData, config: Config, units: int) -> nn.Module:
    """Layers of a condition: the sum of one embedding a label, or a projection of the text."""
    if config.condition == "text":
        width = data.train.text.shape[1]
        return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, units))
    embedding = nn.Linear(data.classes, units)
    nn.init.normal_(embedding.weight)
    return embedding
