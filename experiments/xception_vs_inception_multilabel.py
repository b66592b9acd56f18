"""Xception and Inception V3 on many labels. Chollet 2017, section 4.5.1, table 2, figures 7 and 8.

Question   Does Xception use the same number of parameters better on a multi-label task too, and do
           dense layers before the logistic regression change that?
Paper      JFT, 350 million images, MAP@100 on FastEval14k: Xception 6.70, Inception V3 6.36; with
           two dense layers of 4096 units 6.78 and 6.50. One run each, not converged.
Deviates   JFT is closed: the scale's images of many labels stand in for it. With 100 classes or
           fewer the first 100 predictions are all of them. The 4096 units scale with the width.
"""

from sepablate.study import INCEPTION_V3, XCEPTION, Claim, Study

OURS = XCEPTION.but(
    "xception_multilabel", "Xception", task="multi_label", recipe="jft", dropout=0.0
)
THEIRS = INCEPTION_V3.but(
    "inception_v3_multilabel",
    "Inception V3",
    task="multi_label",
    recipe="jft",
    dropout=0.0,
    same_parameters_as=OURS,
)
OURS_DENSE = OURS.but("xception_multilabel_fc", "Xception, FC layers", hidden=2)
THEIRS_DENSE = THEIRS.but(
    "inception_v3_multilabel_fc",
    "Inception V3, FC layers",
    hidden=2,
    same_parameters_as=OURS_DENSE,
)


def claim(left: str, right: str, statement: str) -> Claim:
    """On the final mean average precision, as all of table 2."""
    return Claim(
        left,
        ">",
        right,
        metric="map_100",
        margin=0.005,
        section="4.5.1, table 2",
        statement=statement,
    )


STUDY = Study(
    title="Xception and Inception V3 on many labels",
    source="arXiv:1610.02357, section 4.5.1, table 2, figures 7 and 8",
    baseline=OURS,
    variants=(THEIRS, OURS_DENSE, THEIRS_DENSE),
    claims=(
        claim(
            "xception_multilabel",
            "inception_v3_multilabel",
            "Xception is the more precise, without dense layers",
        ),
        claim(
            "xception_multilabel_fc",
            "inception_v3_multilabel_fc",
            "Xception is the more precise, with two dense layers",
        ),
        claim(
            "xception_multilabel_fc",
            "xception_multilabel",
            "dense layers make Xception more precise",
        ),
        claim(
            "inception_v3_multilabel_fc",
            "inception_v3_multilabel",
            "dense layers make Inception V3 more precise",
        ),
    ),
    factors=("model", "model.hidden"),
    confounds={
        "model.width": "solved for, to bring the parameter counts of each pair together",
        "parameters": "each pair matched as nearly as whole channels allow; at width 1 as "
        "published; dense layers add theirs",
        "mult_adds": "matched parameters are not matched computation",
        "weight_decay": "section 4.3: 1e-5 for Xception, 4e-5 for Inception V3",
    },
    figures={
        7: ("xception_multilabel", "inception_v3_multilabel"),
        8: ("xception_multilabel_fc", "inception_v3_multilabel_fc"),
    },
)
