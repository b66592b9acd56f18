"""Cost of separable convolutions, counted and timed. Howard et al. 2017, section 3.1.

Question   A separable convolution has 1/N + 1/k^2 of the mult-adds of a standard one with kernel
           size k and N output channels. Does it take that part of its time, forward and backward?
Paper      Table 3 counts the mult-adds and parameters of one layer. Chollet 2017, section 4.5.2,
           finds Xception, made of such layers, a little slower than Inception V3 of equal size.
Deviates   As many channels out as in, and nothing around the layer: no batch norm, no activation.
           Times are of one machine and of its library; they differ from run to run.
"""

from sepablate.study import LayerStudy

STUDY = LayerStudy(
    title="Cost of separable convolutions, counted and timed",
    source="arXiv:1704.04861v1 section 3.1, equation 5 and table 3",
    kernels=(3, 5, 7),
    widths=(16, 32, 64, 128, 256, 512),
    map_size=14,
    batch=4,
    repeats=15,
    seconds=45,
    smaller={"smoke": {"widths": (16, 64), "repeats": 3, "seconds": 5}},
)
