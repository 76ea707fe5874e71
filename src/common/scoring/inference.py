"""A network over many windows: logits and features, in float32 so that verdicts do not depend on
the processor.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from .backbones import CLASSES, Net, build, prepare
from .compiled import WORTH_FRAMES, WORTH_WINDOWS, compiled
from .stain import SMALLEST, StainFacts, StainNet, build_stain, predict_stain, window_logits

WINDOWS = ["image_id", "y", "x", "size"]


def load_model(directory: Path, description: dict) -> Net | StainNet:
    """The trained network in DIRECTORY/model.safetensors, in evaluation mode.

    description: the content of model.json or contract.json, whose target, arch and pooling (or
    stain) say what it is.
    """
    if description.get("target") == "stain":
        net = build_stain(description["arch"], StainFacts(**description["stain"]))
    else:
        net = build(description["arch"], pooling=description["pooling"])
    net.load_state_dict(load_file(directory / "model.safetensors"))
    return net.eval()


def compiled_net(net: Net | StainNet, method: str = "forward") -> Net | StainNet:
    """The network for many windows or frames, with its `method` compiled."""
    side = SMALLEST if isinstance(net, StainNet) else net.backbone.input_size
    shape = (1, 1, side, side) if isinstance(net, StainNet) else (2, 3, side, side)
    return compiled(net, method, shape)


def predict(
    net: Net, store, table: pd.DataFrame, batch_size: int = 32, desc: str | None = "predict"
) -> np.ndarray:
    """Logits (N, 2) float32, columns in the order of CLASSES, for the windows of a table (image_id,
    y, x, size).
    """
    return _apply(net, "forward", len(CLASSES), store, table, batch_size, desc)


def live_logits(net: Net | StainNet, store, table: pd.DataFrame, desc: str | None) -> np.ndarray:
    """Live evidence (N,) float64 of a table's windows: higher is more live, calibration follows.

    z_live - z_dead of a classifier; of a stain network what it predicts inside, each frame once.
    """
    if isinstance(net, Net):
        logits = predict(net, store, table, desc=desc).astype(float)
        return logits[:, 1] - logits[:, 0]
    found = np.empty(len(table))
    frames = table.groupby("image_id", sort=False).indices
    if len(frames) >= WORTH_FRAMES:
        net = compiled_net(net)
    for image_id, rows in tqdm(frames.items(), desc=desc, unit="frame", disable=desc is None):
        maps = predict_stain(net, np.asarray(store.brightfield(image_id)))
        found[rows] = window_logits(maps, table.iloc[rows][["y", "x", "size"]].to_numpy(np.int64))
    return found


def embed(
    net: Net, store, table: pd.DataFrame, batch_size: int = 32, desc: str | None = "embed"
) -> np.ndarray:
    """Pooled features (N, D) float32 of the windows of a table (image_id, y, x, size)."""
    return _apply(net, "features", net.feature_dim, store, table, batch_size, desc)


def apply_to_windows(
    net: Net,
    call: Callable[[torch.Tensor], torch.Tensor],
    windows: np.ndarray,
    batch_size: int = 32,
) -> np.ndarray:
    """The result of `call` on windows (N, h, w) uint8 of one size, as (N, K) float32."""
    net = net.eval().to(memory_format=torch.channels_last)
    results = []
    with torch.inference_mode():
        for start in range(0, len(windows), batch_size):
            batch = prepare(net.backbone, windows[start : start + batch_size])
            results.append(
                call(batch.contiguous(memory_format=torch.channels_last)).float().numpy()
            )
    return np.concatenate(results)


def _apply(
    net: Net, method: str, width: int, store, table: pd.DataFrame, batch_size: int, desc: str | None
) -> np.ndarray:
    if len(table) >= WORTH_WINDOWS:
        net = compiled_net(net, method)
    call = getattr(net, method)
    found = np.empty((len(table), width), np.float32)
    with tqdm(total=len(table), desc=desc, unit="window", disable=desc is None) as bar:
        for rows in _batches(table, batch_size):
            windows = np.stack(
                [store.window(*row) for row in table.iloc[rows][WINDOWS].itertuples(index=False)]
            )
            found[rows] = apply_to_windows(net, call, windows, batch_size)
            bar.update(len(rows))
    return found


def _batches(table: pd.DataFrame, batch_size: int) -> Iterator[np.ndarray]:
    """Row numbers in batches whose windows are of one size."""
    sizes = table["size"].to_numpy()
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        yield from np.array_split(rows, max(1, -(-len(rows) // batch_size)))
