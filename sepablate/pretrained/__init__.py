"""Evaluate published weights in our networks on ImageNet's validation images."""
