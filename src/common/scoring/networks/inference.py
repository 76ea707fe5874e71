"""A network over many windows: logits and features, in float32 so that verdicts do not depend on
the processor; for many windows or frames it is compiled by OpenVINO first.
"""

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from .backbones import CLASSES
from .net import Net, build, prepare
from .signals import own_signal_stack
from .stain import SMALLEST, StainFacts, StainNet, build_stain, predict_stain, window_logits

WINDOWS = ["image_id", "y", "x", "size"]
WORTH_WINDOWS, WORTH_FRAMES = 150, 10  # from which on compiling costs less than it saves


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
    live = np.empty(len(table))
    frames = table.groupby("image_id", sort=False).indices
    if len(frames) >= WORTH_FRAMES:
        net = compiled_net(net)
    for image_id, rows in tqdm(frames.items(), desc=desc, unit="frame", disable=desc is None):
        maps = predict_stain(net, np.asarray(store.brightfield(image_id)))
        live[rows] = window_logits(maps, table.iloc[rows][["y", "x", "size"]].to_numpy(np.int64))
    return live


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
    if len(table) >= WORTH_WINDOWS and method not in vars(net):  # as it is where compiled already
        net = compiled_net(net, method)
    call = getattr(net, method)
    outputs = np.empty((len(table), width), np.float32)
    with tqdm(total=len(table), desc=desc, unit="window", disable=desc is None) as bar:
        for rows in _batches(table, batch_size):
            windows = np.stack(
                [store.window(*row) for row in table.iloc[rows][WINDOWS].itertuples(index=False)]
            )
            outputs[rows] = apply_to_windows(net, call, windows, batch_size)
            bar.update(len(rows))
    return outputs


def _batches(table: pd.DataFrame, batch_size: int) -> Iterator[np.ndarray]:
    """Row numbers in batches whose windows are of one size."""
    sizes = table["size"].to_numpy()
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        yield from np.array_split(rows, max(1, -(-len(rows) // batch_size)))


def compiled_net(net: Net | StainNet, method: str = "forward") -> Net | StainNet:
    """The network for many windows or frames, with its `method` compiled."""
    if isinstance(net, StainNet):
        shape = (1, 1, SMALLEST, SMALLEST)
        return StainNet([compiled(one, method, shape) for one in net.networks], net.stain)
    side = net.backbone.input_size
    return compiled(net, method, (2, 3, side, side))


def compiled(net: nn.Module, method: str, shape: tuple[int, ...]) -> nn.Module:
    """A shallow copy of a network whose `method`, of one tensor, is compiled in float32 and has no
    gradient; the network itself stays as it is. A method that gives several tensors gives a list.

    shape: (N, C, h, w) of an example, N at least 2 where batches differ; other sizes are taken too.
    """
    # Imported, OpenVINO tells its maker so over the network, unless it finds nothing to tell it by
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    from openvino import Core
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    call = getattr(copy.deepcopy(net).eval().requires_grad_(False), method)
    with torch.no_grad(), warnings.catch_warnings():
        # OpenVINO reads TorchScript, which PyTorch deprecates; of its tracer's warnings none
        # concerns a network whose sizes follow its input's
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda images: call(images), torch.zeros(shape), check_trace=False)
    # the front end itself: openvino.convert_model would report each use over the network
    manager, decoder = FrontEndManager(), TorchScriptPythonDecoder(traced)
    frontend = manager.load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    # not bf16, its default where the machine has it: calls are to be the same on every machine
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with own_signal_stack():
        network = Core().compile_model(model, "CPU", exact)

    def run(images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        outputs = network(images.contiguous().numpy()).values()
        tensors = [torch.from_numpy(values.copy()) for values in outputs]
        return tensors if len(tensors) > 1 else tensors[0]

    fast = copy.copy(net)
    setattr(fast, method, run)
    return fast
