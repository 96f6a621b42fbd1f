"""The 15 common corruptions (Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261), of whole batches of bytes.

The entry point is :func:`isthmus.data.corruptions.apply.corrupt`. Every operation takes float images in [0, 1], its
parameters at one severity, and a key for each image, from which its random numbers derive.
"""
