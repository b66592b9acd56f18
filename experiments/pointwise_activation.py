"""An activation around the pointwise convolution. Chollet 2017, section 4.7, figure 10.

Question   Does a non-linearity between the depthwise and the pointwise step help or hurt? And what
           does the one after the pointwise step do?
Paper      None between the two converges faster and ends better than ReLU or ELU; only curves.
           The section's title says "after pointwise convolutions", its text says between.
Deviates   No batch norm is added with the activation. "After" is an axis of our
           own: the ReLU that follows a separable convolution inside a block or in the last module
           is removed; the one at a block's head follows a sum and stays.
"""

from sepablate.study import XCEPTION, Claim, Study

RELU = XCEPTION.but("relu_between", "ReLU between", activation_between="relu")
ELU = XCEPTION.but("elu_between", "ELU between", activation_between="elu")
NONE_AFTER = XCEPTION.but("none_after", "No ReLU after", activation_after="none")


def no_activation_beats(name: str, label: str, metric: str, how: str) -> Claim:
    """The two forms of the paper's claim, for each of the two activations."""
    statement = f"no activation between depthwise and pointwise {how} than {label}"
    return Claim(
        "xception", ">", name, metric=metric, margin=0.005, section="4.7", statement=statement
    )


STUDY = Study(
    title="Activation between the depthwise and the pointwise step, and after it",
    source="arXiv:1610.02357, section 4.7, figure 10",
    baseline=XCEPTION,
    variants=(RELU, ELU, NONE_AFTER),
    claims=(
        no_activation_beats("relu_between", "ReLU", "accuracy", "ends more accurate"),
        no_activation_beats("relu_between", "ReLU", "speed", "converges sooner"),
        no_activation_beats("elu_between", "ELU", "accuracy", "ends more accurate"),
        no_activation_beats("elu_between", "ELU", "speed", "converges sooner"),
    ),
    factors=("model.activation_between", "model.activation_after"),
    figures={10: ("xception", "relu_between", "elu_between")},
)
