"""Xception and Inception V3 at nearly equal size. Chollet 2017, section 4.5, table 1, figure 6.

Question   Does replacing Inception modules by depthwise separable convolutions use the same number
           of parameters better?
Paper      ImageNet, top-1: Xception 0.790, Inception V3 0.782. One run each.
Deviates   The width of Inception V3 is solved for, to bring its parameter count to Xception's; at
           width 1 both are as published (in the paper within 3.5 %). Neither has the auxiliary
           tower, as in the paper. Maps are padded as in PyTorch's libraries; the control `borders`
           pads them as TensorFlow.
"""

from sepablate.study import INCEPTION_V3, XCEPTION, Claim, Study

STUDY = Study(
    title="Xception and Inception V3 at nearly equal parameter counts",
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
            statement="Xception ends more accurate than Inception V3 of nearly the same size",
        ),
    ),
    factors=("model",),
    confounds={
        "model.width": "solved for, to bring the parameter counts together",
        "parameters": "matched as nearly as whole channels allow; at width 1 left as published",
        "mult_adds": "matched parameters are not matched computation",
        "weight_decay": "section 4.3: 1e-5 for Xception, 4e-5 for Inception V3",
    },
    figures={6: ("xception", "inception_v3")},
)
