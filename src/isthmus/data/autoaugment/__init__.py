"""AutoAugment of whole batches of bytes: each image by its own sub-policy, pixel for pixel as Pillow does it.

The reference is Google's released code (tensorflow/models, research/autoaugment), with one difference: pixels from
outside a rotated, sheared or shifted image are black here. There they are transparent, and finally the mean colour
unless a later operation drops the transparency. Most ports fill with black or grey.
"""
