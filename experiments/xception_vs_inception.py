"""Xception and Inception V3 at equal size. Chollet 2017, section 4.5, table 1, figure 6.

Question   Does replacing Inception modules by depthwise separable convolutions use the same number
           of parameters better?
Paper      ImageNet, top-1: Xception 0.790, Inception V3 0.782. One run each.
Deviates   Small grey images and narrow networks. The width of Inception V3 is solved for, so that
           its parameter count is within 1 % of Xception's (3.5 % in the paper). Neither has the
           auxiliary tower, as in the paper. Maps are padded as in PyTorch's libraries; the control
           `borders` pads them as TensorFlow.
"""

from sepablate.study import INCEPTION_V3, XCEPTION, Claim, Study

STUDY = Study(
    title="Xception and Inception V3 at equal parameter count",
    source="arXiv:1610.02357, section 4.5, table 1, figure 6",
    baseline=XCEPTION,
    variants=(INCEPTION_V3,),
    claims=(
        Claim(
            "xception",
            ">",
            "inception_v3",
            metric="accuracy",
            margin=0.005,
            section="4.5.1",
            statement="Xception ends more accurate than Inception V3 of the same size",
        ),
    ),
    factors=("model",),
    confounds={
        "model.width": "solved for, so that the parameter counts agree",
        "parameters": "equal within 1 %, as near as whole channels allow",
        "mult_adds": "equal parameters are not equal computation; the table shows both",
        "weight_decay": "section 4.3: 1e-5 for Xception, 4e-5 for Inception V3",
    },
)
