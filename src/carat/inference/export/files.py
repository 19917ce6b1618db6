"""From a run's method to a file, and the file at work without carat."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from carat.inference.predictor import Predictor
from carat.models.base import Model
from carat.utils.errors import CaratError, ExportError

CARD = "carat"
"""Key of an ONNX model's metadata under which it describes itself."""
CARD_FILE = "carat.json"
"""The same within a `.pt2`."""
FATAL = 4
"""What onnxruntime may print; its errors are raised as well."""

Score = Callable[[Sequence[Tensor]], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""A file at work: its inputs in order → scores and attribution, (B, L) each."""


class Flat(nn.Module):
    """A method that takes and gives tensors only, as a file must.

    Args:
        method: in eval mode.
        modalities: in the order of the M axis.
    """

    def __init__(self, model: Model, modalities: Sequence[str]) -> None:
        super().__init__()
        self.model, self.modalities = model, list(modalities)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of each modality features (B, T, d) and mask (B, T) → scores and attribution, (B, L) each."""
        features = dict(zip(self.modalities, inputs[0::2], strict=True))
        masks = dict(zip(self.modalities, inputs[1::2], strict=True))
        for m, x in features.items():
            _same(x.shape[0], inputs[0].shape[0])
            _same(masks[m].shape[0], inputs[0].shape[0])
            _same(masks[m].shape[1], x.shape[1])
        found = self.model.score(features, masks)
        return found.scores, found.attribution


def draw_inputs(
    predictor: Predictor, modality: str, size: Sequence[int], generator: torch.Generator | None = None
) -> Tensor:
    """Numbers (B, T, d) as a batch of a modality holds them, at random: (B, T) is the size."""
    card = predictor.card.modalities[modality]
    if card.tokens is not None:
        ids = torch.randint(card.tokens.vocabulary, tuple(size), generator=generator)
        types = (torch.arange(size[1]) > size[1] // 2).long().expand_as(ids)  # own tokens first
        return torch.stack([ids, types][: card.width], dim=-1)
    return torch.randn(*size, card.width, generator=generator)


def _same(size: int, other: int) -> None:
    """Tell PyTorch before it meets them: sizes that it finds equal later leave guards that refuse T = 1."""
    torch._check(size == other)  # type: ignore[no-untyped-call]


def capture(predictor: Predictor) -> ExportedProgram:
    """The graph of a run's method, for any B and any T up to the modality's max_length.

    Raises:
        ExportError: PyTorch cannot.
    """
    model = predictor.model
    shapes: list[dict[int, Any]] = []
    example: list[Tensor] = []
    batch = Dim("B", min=1)
    for place, m in enumerate(predictor.widths):
        longest = model.max_length[m]
        steps = Dim(f"T_{m.replace('-', '_')}", min=1, max=longest) if longest > 1 else None
        shapes += 2 * [{0: batch, 1: steps}]
        size = (3, min(longest, 5 + place))
        example += [draw_inputs(predictor, m, size), torch.ones(size, dtype=torch.bool)]
    flat = Flat(model, list(predictor.widths)).eval()
    with foreign(f"{predictor.folder}: PyTorch {torch.__version__} cannot export it"), _any_length(model):
        # strict: otherwise `len(x)` in a model would fix the batch size
        program = torch.export.export(flat, tuple(example), dynamic_shapes=(tuple(shapes),), strict=True)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # names folders of this machine
    return program


def _any_length(model: Model) -> AbstractContextManager[None]:
    """What PyTorch needs to export an LSTM for any number of steps; it stays one operation of the graph."""
    if not any(isinstance(part, nn.LSTM) for part in model.modules()):
        return nullcontext()
    from torch.export._patches import register_lstm_while_loop_decomposition

    manager: AbstractContextManager[None] = register_lstm_while_loop_decomposition()
    return manager


class ModelFile(Protocol):
    """A model in the form of one kind of file."""

    needs: ClassVar[tuple[str, ...]]
    """Packages that carat does without otherwise."""

    @classmethod
    def make(cls, predictor: Predictor, inputs: list[str], outputs: list[str]) -> ModelFile:
        """From a run, with names of inputs and outputs where the kind has such.

        Raises:
            ExportError: PyTorch cannot.
        """

    def write(self, file: Path, card: str) -> None:
        """Write it with what it says of itself."""

    def open(self, file: Path) -> Score:
        """Read such a file as its user will."""

    def quantise(self, scratch: Path) -> ModelFile:
        """The same with the weights of linear layers in 8 bits; `scratch` is overwritten.

        Raises:
            ExportError: this kind of file cannot.
        """


class ProgramFile:
    """A program of `torch.export`.

    Args:
        program: of a run.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program

    @classmethod
    def make(cls, predictor: Predictor, inputs: list[str], outputs: list[str]) -> ProgramFile:
        return cls(capture(predictor))

    def write(self, file: Path, card: str) -> None:
        content = io.BytesIO()  # a path would name the archive after the unfinished file
        with foreign(f"{file}: cannot be written"):
            torch.export.save(self.program, content, extra_files={CARD_FILE: card})
        file.write_bytes(content.getvalue())

    def open(self, file: Path) -> Score:
        with foreign(f"{file}: cannot be read back"):
            module = torch.export.load(file).module()

        @torch.inference_mode()
        def score(inputs: Sequence[Tensor]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            scores, attribution = module(*inputs)
            return scores.numpy(), attribution.numpy()

        return score

    def quantise(self, scratch: Path) -> ModelFile:
        raise ExportError(f"{scratch}: only ONNX is quantised")


class OnnxFile:
    """An ONNX model.

    Args:
        proto: of the model.
        names: of its inputs, in order.
    """

    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")

    def __init__(self, proto: Any, names: list[str]) -> None:
        self.proto, self.names = proto, names

    @classmethod
    def make(cls, predictor: Predictor, inputs: list[str], outputs: list[str]) -> OnnxFile:
        program = capture(predictor)
        problem = f"{predictor.folder}: PyTorch {torch.__version__} cannot turn it into ONNX"
        with foreign(problem), _any_length(predictor.model):
            made = torch.onnx.export(
                program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False
            )
            assert made is not None
            proto: Any = made.model_proto
        graph = proto.graph
        for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
            part.ClearField("metadata_props")  # where it came from in PyTorch; larger than small weights
        return cls(proto, inputs)

    def write(self, file: Path, card: str) -> None:
        import onnx

        onnx.helper.set_model_props(self.proto, {CARD: card})
        file.write_bytes(self.proto.SerializeToString())

    def open(self, file: Path) -> Score:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = FATAL
        with foreign(f"{file}: cannot be read back"):
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

        def score(inputs: Sequence[Tensor]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            fed = {name: x.numpy() for name, x in zip(self.names, inputs, strict=True)}
            scores, attribution = session.run(None, fed)
            return scores, attribution

        return score

    def quantise(self, scratch: Path) -> ModelFile:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        graph = self.proto.graph
        stacked = {x.name for x in graph.initializer if len(x.dims) > 2}  # weights of all modalities in one
        with foreign(f"{scratch}: cannot be quantised"):
            quantize_dynamic(
                self.proto,
                scratch,
                op_types_to_quantize=["MatMul"],  # onnxruntime makes one of every Gemm
                nodes_to_exclude=[node.name for node in graph.node if stacked & set(node.input)],
                per_channel=True,  # which the runtime has for matrices only
                weight_type=QuantType.QUInt8,  # signed ones saturate on CPUs without VNNI
            )
        return OnnxFile(onnx.load(scratch), self.names)


KINDS: dict[str, type[ModelFile]] = {".onnx": OnnxFile, ".pt2": ProgramFile}
"""By the ending of the file."""


@contextmanager
def foreign(problem: str) -> Iterator[None]:
    """Exporters and runtimes at work: warnings for their developers are dropped, errors become one line."""
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.simplefilter("ignore", category)
            yield
    except CaratError:
        raise
    except Exception as error:  # they raise anything
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"{problem} ({reason})") from error
    finally:
        logging.disable(silenced)
