"""The modality gap of any text and video embeddings, and what each step of a sampler does to it.

    from pathlib import Path
    import analysis

    flow = analysis.read_features(Path("embeddings.npz"))        # or analysis.flow_of(model, texts, frames, video_of)
    report = analysis.analyse([flow])
    report.as_dict()["steps"][0]["rmg"]
    analysis.write_report(Path("report"), report)

Names are imported when they are first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Analysis": "analysis.measures.analysis",
    "Cloud": "analysis.projections.projection",
    "Flow": "analysis.flow",
    "MEASURES": "analysis.measures.gap",
    "ReportConfig": "analysis.measures.analysis",
    "analyse": "analysis.measures.analysis",
    "flow_of": "analysis.flow",
    "gap_intervals": "analysis.measures.bootstrap",
    "gap_measures": "analysis.measures.gap",
    "mean_shift": "analysis.measures.analysis",
    "pair_distances": "analysis.measures.gap",
    "path_measures": "analysis.measures.trajectory",
    "project": "analysis.projections.projection",
    "read_features": "analysis.features",
    "step_reports": "analysis.measures.trajectory",
    "trust": "analysis.projections.trust",
    "write_report": "analysis.report.files",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute '{name}'")
    globals()[name] = value = getattr(import_module(_HOME[name]), name)  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
