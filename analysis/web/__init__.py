"""The script and the style sheet of figure panels, for the page and for reports."""

from pathlib import Path

WEB = Path(__file__).resolve().parent
