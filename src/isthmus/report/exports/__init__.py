"""Audits in the formats of other tools, written from their stored results: ``<format>.py`` holds ``render``."""
