"""Methods of training and their settings, for ``xmodal train --help``.

The modules of the methods import torch; this list does not. A test compares both.
"""

from __future__ import annotations

SETTINGS: dict[str, str] = {
    "contrastive": (
        "unpaired=auto unpaired_weight=0.3 unpaired_rounds=2 unpaired_neighbours=10 "
        "unpaired_temperature=0.05 unpaired_students=4 noise=auto "
        "fine_tune=none fine_tune_rate=0.0003 "
        "negatives=none triplet=3.0 margin=0.2 reward_margin=0.5 warmup=2 estimator=exact "
        "picks=8 policy_share=0.5 policy_pool_share=0.05 policy_rate=0.001 policy_entropy=0.01 "
        "epochs=40 batch=512 hidden=512 dropout=0.4 learning_rate=0.001 linear_rate=0.1 "
        "weight_decay=0.01 warmup_steps=20 prefixes=0 temperature=0.05 quantise=0.1 "
        "caption_mix=0.5 "
        "label_weight=1.0 match_share=0.3 certainty=0.85 pseudo_labels=true directions=64"
    ),
    "schgan": (
        "epochs=30 batch=512 hidden=512 feature_dropout=0.3 learning_rate=0.005 "
        "weight_decay=0.01 pseudo_labels=true pairs=0.7 match_share=0.3 temperature=0.1 "
        "neighbours=2.0 neighbour_temperature=0.1 directions=64 quantise=0.1 balance=0.1 "
        "decorrelate=0.1 code_critic=0.0 classes=3.0 certainty=0.85 negatives=semi-hard "
        "triplet=3.0 margin=0.2 reward_margin=0.5 warmup=2 estimator=exact picks=8 "
        "policy_share=0.5 policy_pool_share=0.05 policy_rate=0.001 policy_entropy=0.01 "
        "positives=pseudo-labels positive_share=0.3 positive_pool_share=0.02"
    ),
    "schgan-paper": (
        "hidden=8192 epochs=30 generator_passes=2 pretraining=5 redraw=30 triplets=4 "
        "pretraining_batch=20 pretraining_rate=0.01 candidate_share=0.1 picks=2 "
        "random_negatives=2 query_share=0.25 queries_per_step=128 learning_rate=0.0001 "
        "generator_rate=0.01 margin=5.0 pair_weight=0.1 weight_decay=0.01 reward=B "
        "pair_target=match softmax=pool reward_width=spread class_labels=labelled "
        "best_epoch=validation false_negatives=estimated rate_decay=applied decay=0.9 "
        "start=scaled quantise=0.1 balance=0.1 decorrelate=0.1 margin_unit=bits "
        "policy_gradient=centred entropy=0.01 generator_pretraining=true"
    ),
    "dshgan": (
        "epochs=14 batch=512 hidden=512 feature_dropout=0.3 learning_rate=0.005 "
        "weight_decay=0.01 pseudo_labels=true pairs=0.7 match_share=0.3 temperature=0.1 "
        "neighbours=2.0 neighbour_temperature=0.1 directions=64 quantise=0.1 balance=0.1 "
        "decorrelate=0.1 code_critic=0.0 classes=3.0 certainty=0.85 synthetic=true "
        "condition=label synthetic_share=0.5 synthetic_classes=0.0 warmup=2 pretraining=200 "
        "synthetic_queries=0.25 adversary=0.1 penalty=1.0 reconstruction_weight=1.0 noise=32 "
        "latent=256 generator_rate=0.002 adversary_rate=0.003 triplet=3.0 margin=0.2"
    ),
    "multiadversarial": (
        "epochs=16 batch=512 hidden=512 feature_dropout=0.3 learning_rate=0.005 "
        "weight_decay=0.01 pseudo_labels=true pairs=0.7 match_share=0.3 temperature=0.1 "
        "neighbours=2.0 neighbour_temperature=0.1 directions=64 quantise=0.1 balance=0.1 "
        "decorrelate=0.1 code_critic=1.0 classes=3.0 certainty=0.85 reconstruction=critic "
        "reconstruction_weight=1.0 warmup=6 components=128 codes=critic critic_steps=5 "
        "critic_rate=0.001"
    ),
    "sigah": (
        "epochs=30 batch=256 learning_rate=0.01 feature_dropout=0.0 adversary=true alpha=1.0 "
        "sparsity=0.01 units=512 discriminator_units=128 gamma=0.5 balance_rate=0.001 "
        "network_rate=0.001 neighbours=1.0 nearest=10 neighbours_per_item=3 balance=0.1 "
        "decorrelate=0.1 pairs=1.0 match_share=0.3 temperature=0.1 directions=64 "
        "code_critic=0.0"
    ),
    "ssah": (
        "epochs=16 batch=512 hidden=512 feature_dropout=0.3 learning_rate=0.005 "
        "weight_decay=0.01 pseudo_labels=true pairs=0.7 match_share=0.3 temperature=0.1 "
        "neighbours=2.0 neighbour_temperature=0.1 directions=64 quantise=0.1 balance=0.1 "
        "decorrelate=0.1 code_critic=0.0 adversary=learned area=0.3333333333333333 angle=30.0 "
        "hardness=0.3 pace=0.8 adversary_rate=0.01 warmup=2 share=0.4 hard=1.5 consistency=1.0 "
        "ema_decay=0.95 likelihood=3.0 slope=10.0 middle=0.5"
    ),
}
"""Names and defaults of the settings of each method, as ``--set`` takes them."""


def settings_help() -> str:
    """Return the methods and their settings as an epilog of click."""
    parts = ["Methods, and their settings for --set:"]
    for method, settings in SETTINGS.items():
        parts.append(f"{method}: {settings}")
    return "\n\n".join(parts)
