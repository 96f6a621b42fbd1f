"""Models: backbones, the bottleneck around them, classifiers of label hypotheses, and views of any classifier."""
