"""MobileNet as the base of a detector. Howard et al. 2017, section 4.6, table 13.

Question   What does a detector lose when the standard convolutions of its base are separable ones,
           and which base gives the most for its cost?
Paper      COCO, SSD 300, mAP: MobileNet 19.3 % with 1.2 billion mult-adds, Inception V2 22.0 % with
           3.8, VGG 21.1 % with 34.9. One run each.
Deviates   At all scales but `paper`, scenes of one to six garments, 64 x 64 pixels, stand in for
           COCO. The bases are those of this suite, at the scale's width, from random weights and
           not from ImageNet's. SSD has 1x1 heads, as in MobileNet's published code, and at small
           scales four maps, not six.
"""

from sepablate.study import PER_COST, Claim, Study, Variant

MOBILENET = Variant(
    "ssd_mobilenet_v1",
    "MobileNet",
    model="ssd_mobilenet_v1",
    weight_decay=4e-5,
    recipe="detection",
    task="detection",
    decay_depthwise=False,  # section 3.2
)


INCEPTION_V3 = MOBILENET.but(
    "ssd_inception_v3", "Inception V3", model="ssd_inception_v3", decay_depthwise=True
)


def most_for_its_cost(right: str, label: str) -> Claim:
    return Claim(
        "ssd_mobilenet_v1",
        ">",
        right,
        metric=PER_COST,
        margin=0.03,
        section="4.6, table 13",
        statement=f"more mAP per mult-add than {label}",
    )


STUDY = Study(
    title="MobileNet as the base of a detector",
    source="arXiv:1704.04861, section 4.6, table 13",
    baseline=MOBILENET,
    variants=(
        MOBILENET.but("ssd_mobilenet_standard", "Standard convolutions", separable=False),
        MOBILENET.but("ssd_mobilenet_050", "MobileNet 0.50", relative_width=0.5),
        INCEPTION_V3.but("ssd_xception", "Xception", model="ssd_xception", weight_decay=1e-5),
        INCEPTION_V3,
    ),
    claims=(
        Claim(
            "ssd_mobilenet_v1",
            "=",
            "ssd_mobilenet_standard",
            metric="map",
            margin=0.03,
            section="4.6, table 13",
            statement="separable convolutions lose at most 3 points",
        ),
        most_for_its_cost("ssd_mobilenet_standard", "standard convolutions"),
        most_for_its_cost("ssd_inception_v3", "Inception V3"),
        most_for_its_cost("ssd_xception", "Xception"),
    ),
    factors=("model", "model.separable", "model.width"),
    confounds={
        "parameters": "what table 13 compares",
        "mult_adds": "likewise",
        "model.padding": "only Xception and Inception V3 have unpadded layers",
        "weight_decay": "that of each base's own paper",
        "decay_depthwise": "only MobileNet's paper exempts depthwise kernels",
    },
    against="mult_adds",
)
