"""Styles, scripts and HTML of the page."""

from pathlib import Path

WEB = Path(__file__).resolve().parent
