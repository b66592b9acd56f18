"""MobileNet v1 against its twins, and its widths. Howard et al. 2017, tables 4, 5 and 6, figure 4.

Question   What does a network of separable convolutions lose against one of standard convolutions,
           is it better made narrower or shallower, and what does its width buy?
Paper      ImageNet, accuracy: standard convolutions 71.7 %, MobileNet 70.6 %; width 0.75 68.4 %,
           shallow 65.3 %; widths 0.5 and 0.25 63.7 % and 50.6 %. One run each.
Deviates   Widths are relative to the scale's, which may be narrower than MobileNet's. The paper's
           RMSprop has no printed rate or schedule: the rate and its ratio are those of the
           published code, but SGD has momentum here, and there none. Maps are padded as in
           PyTorch's libraries, not as in TensorFlow.
"""

from sepablate.study import Claim, Study, Variant

MOBILENET = Variant(
    "mobilenet_v1",
    "MobileNet",
    model="mobilenet_v1",
    weight_decay=4e-5,
    recipe="mobilenet",
    options={"dropout": 0.001},  # the published code keeps 0.999
    decay_depthwise=False,  # section 3.2
)


def claim(left: str, right: str, table: int, statement: str) -> Claim:
    section = f"MobileNets, table {table}"
    return Claim(
        left, ">", right, metric="accuracy", margin=0.005, section=section, statement=statement
    )


STUDY = Study(
    title="MobileNet: separable or standard, narrow or shallow, and its widths",
    source="arXiv:1704.04861, tables 4, 5 and 6, figure 4",
    baseline=MOBILENET,
    variants=(
        MOBILENET.but("mobilenet_standard", "Standard convolutions", separable=False),
        MOBILENET.but("mobilenet_shallow", "Shallow", shallow=True),
        MOBILENET.but("mobilenet_075", "MobileNet 0.75", relative_width=0.75),
        MOBILENET.but("mobilenet_050", "MobileNet 0.50", relative_width=0.5),
        MOBILENET.but("mobilenet_025", "MobileNet 0.25", relative_width=0.25),
    ),
    claims=(
        claim("mobilenet_standard", "mobilenet_v1", 4, "standard convolutions are more accurate"),
        claim("mobilenet_075", "mobilenet_shallow", 5, "narrower is better than shallower"),
        claim("mobilenet_v1", "mobilenet_075", 6, "width 1 is better than width 0.75"),
        claim("mobilenet_075", "mobilenet_050", 6, "width 0.75 is better than width 0.5"),
        claim("mobilenet_050", "mobilenet_025", 6, "width 0.5 is better than width 0.25"),
    ),
    factors=("model.separable", "model.shallow", "model.width"),
    confounds={
        "parameters": "what the tables trade against accuracy",
        "mult_adds": "likewise",
    },
    against="mult_adds",
)
