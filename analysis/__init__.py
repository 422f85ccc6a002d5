"""Measures of the modality gap between text and video embeddings, and of what each sampler step does to it.

    from pathlib import Path
    import analysis

    flow = analysis.read_features(Path("embeddings.npz"))        # or analysis.flow_of(model, texts, frames, video_of)
    report = analysis.analyse([flow])
    report.as_dict()["steps"][0]["rmg"]
    analysis.write_report(Path("report"), report)

Names are imported when they are first used.
"""

from dits.common.lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "analysis.features": ("read_features",),
        "analysis.flow": ("Flow", "flow_of"),
        "analysis.measures.analysis": ("Analysis", "ReportConfig", "analyse", "mean_shift"),
        "analysis.measures.bootstrap": ("gap_intervals",),
        "analysis.measures.gap": ("MEASURES", "gap_measures", "pair_distances"),
        "analysis.measures.trajectory": ("path_measures", "step_reports"),
        "analysis.projections.projection": ("Cloud", "project"),
        "analysis.projections.trust": ("trust",),
        "analysis.report.files": ("write_report",),
    },
)
