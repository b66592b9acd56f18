"""Published weights in our networks, on ImageNet's validation images, beside table 1."""
