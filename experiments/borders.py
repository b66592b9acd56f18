"""Both networks with TensorFlow's borders. Chollet 2017, section 4.5.

Question   The networks are those of PyTorch's libraries. The author's code, in TensorFlow, pads
           even maps before a stride of 2 at one end only, and leaves padding out of average pools.
           Does the order of the two networks hang on that?
Paper      Its networks have TensorFlow's borders; no others are tried.
Deviates   A control that the paper lacks. The smaller the images, the more of a map is border.
"""

from sepablate.study import INCEPTION_V3, XCEPTION, Claim, Study

XCEPTION_TENSORFLOW = XCEPTION.but(
    "xception_tensorflow", "Xception, TensorFlow's borders", borders="tensorflow"
)
INCEPTION_TENSORFLOW = INCEPTION_V3.but(
    "inception_v3_tensorflow", "Inception V3, TensorFlow's borders", borders="tensorflow"
)

STUDY = Study(
    title="Xception and Inception V3 with TensorFlow's borders",
    source="arXiv:1610.02357, section 4.5",
    baseline=XCEPTION,
    variants=(XCEPTION_TENSORFLOW, INCEPTION_TENSORFLOW, INCEPTION_V3),
    claims=(
        Claim(
            "xception_tensorflow",
            ">",
            "inception_v3_tensorflow",
            metric="accuracy",
            margin=0.005,
            section="4.5.1",
            statement="with TensorFlow's borders Xception ends more accurate than Inception V3",
        ),
    ),
    factors=("model", "model.borders"),
    confounds={
        "model.width": "solved for, to bring the parameter counts together",
        "parameters": "matched as nearly as whole channels allow; at width 1 left as published",
        "mult_adds": "matched parameters are not matched computation",
        "weight_decay": "section 4.3: 1e-5 for Xception, 4e-5 for Inception V3",
    },
)
