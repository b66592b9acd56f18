"""One activation in each separable convolution, in another place. Chollet 2017, section 4.7.

Question   Xception has a ReLU after the pointwise step and none between the two steps. Is it the
           place that counts, or only that there is one ReLU and not two?
Paper      Compares none, ReLU and ELU between the steps, and keeps the ReLU after them.
Deviates   An example of a study of your own; small grey images and narrow networks.
"""

from sepablate.study import XCEPTION, Claim, Study

MOVED = XCEPTION.but("moved_relu", "ReLU moved", activation_between="relu", activation_after="none")
STUDY = Study(
    title="A ReLU between the two steps instead of after them",
    source="arXiv:1610.02357, section 4.7",
    baseline=XCEPTION,
    variants=(MOVED,),
    claims=(
        Claim(
            "xception",
            ">",
            "moved_relu",
            metric="accuracy",
            margin=0.005,
            section="4.7",
            statement="a ReLU after the pointwise step is better than one between the steps",
        ),
    ),
    factors=("model.activation_between", "model.activation_after"),
)
