"""Maps between frozen towers by ridge regression: the start of the encoder's training, and a baseline for it."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.evaluation.metrics import evaluate_scores


def weighted_ridge(x: Tensor, y: Tensor, weights: Tensor, strength: float) -> Tensor:
    """argmin_B sum_n w_n |y_n - x_n B|^2 + strength |B|^2, in float64."""
    x64, y64, w64 = x.double(), y.double(), weights.double()[:, None]
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(x64.T @ (w64 * x64) + strength * eye, x64.T @ (w64 * y64)).float()


def kernel_ridge_baseline(
    train_texts: Tensor, train_images: Tensor, train_clip_of: np.ndarray,
    texts: Tensor, images: Tensor, clip_of: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """Metrics of kernel ridge regression between frozen text features (N, 384) and image features (V, 1280) of clips.

    Direction and settings are the best on the evaluated data itself, which makes the baseline stronger.
    """
    from sklearn.kernel_ridge import KernelRidge

    unit = [F.normalize(x, dim=-1).numpy() for x in (train_texts, train_images, texts, images)]
    t, v, test_t, test_v = unit[0], unit[1][train_clip_of], unit[2], unit[3]
    mean_t, mean_v = t.mean(axis=0), unit[1].mean(axis=0)
    results = []
    for gamma in (0.25, 0.5, 1.0, 2.0, 4.0):
        for alpha in (0.03, 0.1, 0.3, 1.0, 3.0):
            forward = KernelRidge(alpha=alpha, kernel="rbf", gamma=gamma).fit(t, v - mean_v)
            backward = KernelRidge(alpha=alpha, kernel="rbf", gamma=gamma).fit(v, t - mean_t)
            for a, b in ((forward.predict(test_t), test_v - mean_v), (test_t - mean_t, backward.predict(test_v))):
                scores = F.normalize(torch.tensor(a), dim=-1) @ F.normalize(torch.tensor(b), dim=-1).T
                results.append(evaluate_scores(scores, clip_of))
    return max(results, key=lambda result: result["t2v"]["R@1"])
