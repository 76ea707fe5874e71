"""Networks compiled for the processor by OpenVINO: the same numbers but for rounding, two to three
times as fast as PyTorch layer by layer (bench/scoring.py). Compiling takes some seconds.

This file ships inside registered models, which need openvino only where they are compiled.
"""

import copy
import warnings

import torch
from torch import nn

WORTH_WINDOWS, WORTH_FRAMES = 1000, 10  # from which on compiling costs less than it saves


def compiled(net: nn.Module, method: str, shape: tuple[int, ...]) -> nn.Module:
    """A shallow copy of a network whose `method`, of one tensor, is compiled in float32 and has no
    gradient; the network itself stays as it is. A method that gives several tensors gives a list.

    shape: (N, C, h, w) of an example, N at least 2 where batches differ; other sizes are taken too.
    """
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
    # bf16, its default where the machine has it, would move probabilities by a hundredth
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    network = Core().compile_model(model, "CPU", exact)

    def run(images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        outputs = network(images.contiguous().numpy()).values()
        tensors = [torch.from_numpy(values.copy()) for values in outputs]
        return tensors if len(tensors) > 1 else tensors[0]

    fast = copy.copy(net)
    setattr(fast, method, run)
    return fast
