"""The framework of studies that are not ported yet; deleted with the last of them."""
