"""Depthwise first or pointwise first. Chollet 2017, section 1.2.

Question   Does it matter which step of a separable convolution comes first?
Paper      Says that it is unimportant where such operations are stacked; shows no experiment.
Deviates   The depthwise step acts on the layer's outputs instead of its inputs, which changes the
           parameter count a little. Equivalent means within two points of accuracy.
"""

from sepablate.study import POINTWISE_FIRST, XCEPTION, Claim, Study

STUDY = Study(
    title="Order of the depthwise and the pointwise step",
    source="arXiv:1610.02357, section 1.2",
    baseline=XCEPTION,
    variants=(POINTWISE_FIRST,),
    claims=(
        Claim(
            "xception",
            "=",
            "pointwise_first",
            metric="accuracy",
            margin=0.02,
            section="1.2",
            statement="which of the two steps comes first is unimportant",
        ),
    ),
    factors=("model.pointwise_first",),
    confounds={
        "parameters": "the depthwise step acts on the outputs instead of the inputs",
        "mult_adds": "likewise",
    },
)
