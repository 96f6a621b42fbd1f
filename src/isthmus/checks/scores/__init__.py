"""OOD scores that use more than the logits: features of training images, gradients, or a function of your own."""
