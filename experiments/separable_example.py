"""The small network that introduces separable convolutions. Keras, SeparableConv2D's example.

Question   What does it save against its twin of standard convolutions, at what accuracy; and which
           is better at nearly the same number of parameters?
Paper      None: an example of ten classes and 64 x 64 x 3 pixels, without a result. Such networks
           are said to have fewer parameters, compute less and be better sometimes.
Deviates   The data set's images, resized to 64 pixels; grey ones are repeated in three channels.
           Initial weights are He's for each step, not Glorot's: without batch norm that doubles the
           variance of a separable layer's outputs, which RMSprop's steps do not depend on.
"""

from sepablate.study import Claim, Study, Variant

EXAMPLE = Variant(
    "separable_example",
    "Separable",
    model="separable_example",
    weight_decay=0.0,
    options={"in_channels": 3},
    recipe="example",
    image_size=64,
)

STUDY = Study(
    title="The small example network, separable and standard",
    source="Keras, documentation of SeparableConv2D",
    baseline=EXAMPLE,
    variants=(
        EXAMPLE.but("example_standard", "Standard", separable=False),
        EXAMPLE.but(
            "example_standard_narrow",
            "Standard, narrowed",
            separable=False,
            same_parameters_as=EXAMPLE,
        ),
    ),
    claims=(
        Claim(
            "separable_example",
            "=",
            "example_standard",
            metric="accuracy",
            margin=0.02,
            section="Keras' example",
            statement="the separable network is as accurate as its twin of standard convolutions",
        ),
        Claim(
            "separable_example",
            ">",
            "example_standard_narrow",
            metric="accuracy",
            margin=0.005,
            section="Keras' example, open question",
            statement="at about equal parameters the separable network is more accurate",
        ),
    ),
    factors=("model.separable",),
    confounds={
        "model.width": "of the narrow twin, solved for",
        "parameters": "what is saved; the narrow twin has as nearly as many as it can",
        "mult_adds": "likewise",
    },
)
