"""From standard to depthwise convolution, by segments of channels. Chollet 2017, section 1.2.

Question   A pointwise convolution, then a spatial one on independent segments of its channels: one
           segment is a standard convolution, one per channel the depthwise separable one. Is some
           number in between better than both ends?
Paper      Leaves it open: intermediate points of the spectrum may hold further advantages (1.2, 5).
Deviates   All at the same depth; the width is solved for, to bring the parameter counts together.
           Where the segments do not divide a layer's channels they differ by one in size; a layer
           with fewer channels than segments has one per channel. These networks take long: they
           have a recipe of their own, that of ImageNet, so that a scale may train them for less.
"""

from sepablate.study import POINTWISE_FIRST, Claim, Study

SEGMENTS = (1, 2, 4, 8, 16, 32)
ALL_SEGMENTS = POINTWISE_FIRST.but("segments_all", "A segment per channel", recipe="segments")

STUDY = Study(
    title="Segments of channels between Inception and Xception",
    source="arXiv:1610.02357, sections 1.2 and 5",
    baseline=ALL_SEGMENTS,
    variants=tuple(
        ALL_SEGMENTS.but(
            f"segments_{count}",
            f"{count} segment{'s' if count > 1 else ''}",
            segments=count,
            same_parameters_as=ALL_SEGMENTS,
        )
        for count in SEGMENTS
    ),
    claims=(
        Claim(
            "segments_all",
            ">",
            "segments_1",
            metric="accuracy",
            margin=0.005,
            section="1.2",
            statement="one segment per channel beats a standard convolution",
        ),
        *(
            Claim(
                f"segments_{count}",
                ">",
                "segments_all",
                metric="accuracy",
                margin=0.005,
                section="1.2, open question",
                statement=f"{count} segments hold a further advantage over one per channel",
            )
            for count in SEGMENTS[1:]
        ),
    ),
    factors=("model.segments",),
    confounds={
        "model.width": "solved for, to bring the parameter counts together",
        "parameters": "matched as nearly as whole channels allow",
        "mult_adds": "matched parameters are not matched computation",
    },
    against="model.segments",
)
