"""Metrics as the functions of isthmus.metrics return them, for comparison."""


def plain(metric):
    """The metric without name and coordinates."""
    return metric.model_copy(update={"name": "", "coords": {}})
