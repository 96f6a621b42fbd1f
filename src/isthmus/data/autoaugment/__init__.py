"""AutoAugment of whole batches of bytes: each image by its own sub-policy, pixel for pixel as Pillow does it.

Google's released code (tensorflow/models, research/autoaugment) is the measure, with one difference: where an image is
rotated, sheared or shifted, what comes in from outside is black here. There it is transparent, and becomes the mean
colour at the end unless an operation after it drops the transparency; most ports fill as we do or with grey.
"""
