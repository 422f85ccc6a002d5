"""Reads the figures that the page sends."""

import json
from base64 import b64decode

import numpy as np


def panels(text):
    return {panel["name"]: panel for panel in json.loads(text)}


def traces(panel):
    return {trace["name"]: trace for trace in panel["figure"]["data"]}


def floats(values):
    """The numbers in plotly's JSON: a list, or base64 with a dtype."""
    if isinstance(values, dict):
        return np.frombuffer(b64decode(values["bdata"]), values["dtype"]).tolist()
    return [float("nan") if value is None else float(value) for value in values]
