"""Residual connections in Xception, with and without. Chollet 2017, section 4.6, figure 9.

Question   Do the shortcuts help Xception converge, and end better?
Paper      Essential for both, in this architecture; no number is printed, only curves.
Deviates   Deleting the shortcuts also deletes their 1x1 convolutions (4.3 % of the parameters at
           paper size), so a widened twin without shortcuts is trained as a control. All variants
           keep Xception's learning rate, as in the paper, which calls that possibly uncharitable to
           the network without shortcuts.
"""

from sepablate.study import XCEPTION, Claim, Study

NO_RESIDUAL = XCEPTION.but("no_residual", "No shortcuts", residual=False)
NO_RESIDUAL_WIDE = NO_RESIDUAL.but(
    "no_residual_wide", "No shortcuts, widened", same_parameters_as=XCEPTION
)

STUDY = Study(
    title="Effect of the residual connections",
    source="arXiv:1610.02357, section 4.6, figure 9",
    baseline=XCEPTION,
    variants=(NO_RESIDUAL, NO_RESIDUAL_WIDE),
    claims=(
        Claim(
            "xception",
            ">",
            "no_residual",
            metric="accuracy",
            margin=0.005,
            section="4.6",
            statement="with shortcuts Xception ends more accurate than without",
        ),
        Claim(
            "xception",
            ">",
            "no_residual",
            metric="speed",
            margin=0.005,
            section="4.6",
            statement="with shortcuts Xception converges sooner than without",
        ),
    ),
    factors=("model.residual",),
    confounds={
        "parameters": "the shortcuts' 1x1 convolutions go with them; the widened twin controls it",
        "mult_adds": "likewise",
        "model.width": "of the widened twin: solved for, to bring the parameter counts together",
    },
    figures={9: ("xception", "no_residual")},
)
