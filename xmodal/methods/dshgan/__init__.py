"""DSH-GANs: Qiu, Pan, Yao, Mei, "Deep semantic hashing with generative adversarial networks",
SIGIR 2017, arXiv 1804.08275.

The idea. Labels are few, so a conditional generator makes more items that have some. A query is
real; its x+ is synthetic and made from the query's own labels, its x- is made from other labels:
*real-synthetic triplets*. One network feeds three streams: the hash stream, the classification
stream, and an adversary that tells real from synthetic. The generator wants its items to be taken
for real, to be of their class, and to lie where the triplets want them.

Departures from the paper, all of them ours:

- Two modalities. Labels (or the embedding of a text) and noise become one latent, of which an image
  and a text are made: a synthetic pair has one meaning. Triplets go within and across modalities,
  and the adversary judges both halves together.
- Pixel mode: the generator makes 64 x 64 pictures, and the small network of the image tower, which
  is trained with it, feeds all streams. Feature mode: it makes feature vectors; what feeds all
  streams is the frozen backbone, so the adversary does not touch the towers.
- An unlabelled pair asks with the labels of a labelled one, drawn by its believed classes
  (``beliefs``), so every synthetic item has labels for sure; its triplets count by how surely the
  query shares them. Without belief it asks with "no class", and teaches only what is real.
- Each synthetic item is x- of all queries that share none of its labels: n items make n x+ and up
  to n (n - 1) triplets. One that shares some of them is neither x+ nor x-. Distances are shares of
  the bits, since a margin of 1 is met at once by long codes.
- Real-real triplets stay mixed in, and classes are taught by real items alone unless
  ``synthetic_classes`` says otherwise: else the streams and the generator can agree on an artefact
  for each class.
- The adversary is told the condition (projection: Miyato, Koyama, ICLR 2018) and has a hinge loss
  with a penalty on its slope at real items (R1: Mescheder et al., ICML 2018). -l_a saturates, and
  without these two the generator makes one item a class. Of features it sees the principal
  components, since nobody can make the rest.
- The generator also makes real pairs again, from noise inferred from them, like a conditional VAE
  (Bao et al., "CVAE-GAN", ICCV 2017): a few hundred steps are too few for an adversary alone. Of
  pixels it learns only that before the first epoch. What adversary, triplets and classes want of
  each half pulls as strongly as that does: else their gradients at pixels drown it, and each class
  has one grey picture.
- The classification stream reads the codes: one codeword a class, for both modalities.
- As in our other methods natural pairs are contrasted, what both sides of a pair suggest together
  teaches the unlabelled, and bits are pushed to be binary, balanced and uncorrelated.
"""

from xmodal.methods.dshgan.alternation import train
from xmodal.methods.dshgan.settings import Config

__all__ = ["Config", "train"]
