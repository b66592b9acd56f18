"""No shortcuts, with a learning rate of its own. Chollet 2017, section 4.6, figure 9.

Question   The paper trains the network without shortcuts at the learning rate of the one with them,
           and calls that possibly uncharitable. Is the gap a matter of the learning rate?
Paper      Not tried.
Deviates   A control that the paper lacks. The rate is chosen from a grid declared here, by the
           accuracy on validation images of the first two seeds, never on the test set. Xception
           keeps the paper's rate, so the control favours the network without shortcuts.
"""

from sepablate.study import XCEPTION, Claim, Study

NO_RESIDUAL_TUNED = XCEPTION.but(
    "no_residual_tuned",
    "No shortcuts, own rate",
    residual=False,
    learning_rates=(0.005, 0.015, 0.045, 0.135),
)

STUDY = Study(
    title="No shortcuts, at a learning rate of its own",
    source="arXiv:1610.02357, section 4.6",
    baseline=XCEPTION,
    variants=(NO_RESIDUAL_TUNED,),
    claims=(
        Claim(
            "xception",
            ">",
            "no_residual_tuned",
            metric="accuracy",
            margin=0.005,
            section="4.6",
            statement="shortcuts help even if the network without them may choose its "
            "learning rate",
        ),
    ),
    factors=("model.residual",),
    confounds={
        "learning_rate": "the point of the control: the network without shortcuts chooses its own",
        "learning_rates": "the grid that it chooses from",
        "parameters": "the shortcuts' 1x1 convolutions go with them",
        "mult_adds": "likewise",
    },
)
