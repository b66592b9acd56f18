"""Batch norm between the depthwise and the pointwise step. Chollet 2017, section 4.7, figure 10.

Question   A later paper (DeepLabv3+, arXiv:1802.02611) found batch norm and ReLU between the two
           steps to help, against figure 10, but added both at once. Which of the two does what?
Paper      An activation between them hurts; no batch norm is said to go with it.
Deviates   A control that the paper lacks.
"""

from sepablate.study import XCEPTION, Claim, Study

NORM = XCEPTION.but("norm_between", "BN between", norm_between=True)
NORM_RELU = NORM.but("norm_relu_between", "BN and ReLU between", activation_between="relu")

STUDY = Study(
    title="Batch norm between the depthwise and the pointwise step",
    source="arXiv:1802.02611 against arXiv:1610.02357, section 4.7",
    baseline=XCEPTION,
    variants=(NORM, NORM_RELU),
    claims=(
        Claim(
            "norm_relu_between",
            ">",
            "xception",
            metric="accuracy",
            margin=0.005,
            section="4, of 1802.02611",
            statement="batch norm and ReLU between the two steps help (the later paper)",
        ),
        Claim(
            "norm_between",
            ">",
            "norm_relu_between",
            metric="accuracy",
            margin=0.005,
            section="4.7",
            statement="with batch norm between the two steps, no ReLU there is still better",
        ),
    ),
    factors=("model.norm_between", "model.activation_between"),
    confounds={"parameters": "batch norm has two parameters a channel"},
)
