"""SCH-GAN: Zhang, Peng, Yuan, "SCH-GAN: Semi-supervised cross-modal hashing by generative
adversarial network", arXiv 1802.02488; IEEE Transactions on Cybernetics 50(2), 2020.

The idea. Nothing is synthesised: given a query of one modality, the generator *selects* items of
the other from a pool that contains unlabelled data; it is a softmax policy over candidates. The
discriminator is the hash network: it learns to rank true matches above the selected items by a
margin. The generator is rewarded for items close to the margin. Both directions alternate, with
the same parameters; the codes of the discriminator are used for retrieval.

``practical`` is the mode that is shipped, ``paper`` the released program with each of its faults
as a switch.
"""

from xmodal.encoders.towers import Towers
from xmodal.methods.schgan import paper, practical
from xmodal.methods.schgan.settings import Config
from xmodal.run import Run, TrainingData

__all__ = ["Config", "paper", "practical", "train"]


def train(data: TrainingData, config: Config | paper.Config, run: Run) -> Towers:
    """Train towers in the mode that the settings are of."""
    if isinstance(config, paper.Config):
        return paper.train(data, config, run)
    return practical.train(data, config, run)
