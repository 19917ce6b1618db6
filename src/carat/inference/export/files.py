"""Export formats: writing a model to ONNX or `torch.export` files, and running them."""

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
"""Key of the description in the metadata of an ONNX model."""
CARD_FILE = "carat.json"
"""File of the description within a `.pt2` archive."""
FATAL = 4
"""Log severity of onnxruntime; its errors are also raised, so they are not printed."""

Score = Callable[[Sequence[Tensor]], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Function that runs a file: inputs in order → scores and attribution, (B, L) each."""


class PositionalModel(nn.Module):
    """Model with positional tensors as inputs and outputs, as export formats require.

    Args:
        model: model in eval mode.
        modalities: names of the modalities, in the order of the M axis.
    """

    def __init__(self, model: Model, modalities: Sequence[str]) -> None:
        super().__init__()
        self.model, self.modalities = model, list(modalities)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (B, T, d) and mask (B, T) of each modality to scores and attribution, (B, L) each."""
        features = dict(zip(self.modalities, inputs[0::2], strict=True))
        masks = dict(zip(self.modalities, inputs[1::2], strict=True))
        for m, x in features.items():
            _assert_equal(x.shape[0], inputs[0].shape[0])
            _assert_equal(masks[m].shape[0], inputs[0].shape[0])
            _assert_equal(masks[m].shape[1], x.shape[1])
        outputs = self.model.score(features, masks)
        return outputs.scores, outputs.attribution


def random_features(
    predictor: Predictor, modality: str, size: Sequence[int], generator: torch.Generator | None = None
) -> Tensor:
    """Draw random features or token IDs of a modality.

    Args:
        predictor: predictor of the run.
        modality: modality of the run.
        size: (B, T).
        generator: random generator; defaults to the global one.

    Returns:
        (B, T, d).
    """
    card = predictor.card.modalities[modality]
    if card.tokens is not None:
        ids = torch.randint(card.tokens.vocabulary, tuple(size), generator=generator)
        types = (torch.arange(size[1]) > size[1] // 2).long().expand_as(ids)  # own tokens first
        return torch.stack([ids, types][: card.width], dim=-1)
    return torch.randn(*size, card.width, generator=generator)


def _assert_equal(size: int, other: int) -> None:
    """Assert equal sizes up front; otherwise PyTorch infers equality later, with guards that reject T = 1."""
    torch._check(size == other)  # type: ignore[no-untyped-call]


def capture(predictor: Predictor) -> ExportedProgram:
    """Export the model of a run with dynamic B, and dynamic T up to each modality's max_length.

    Raises:
        ExportError: PyTorch cannot export the model.
    """
    model = predictor.model
    shapes: list[dict[int, Any]] = []
    example: list[Tensor] = []
    batch = Dim("B", min=1)
    for i, m in enumerate(predictor.widths):
        max_length = model.max_length[m]
        steps = Dim(f"T_{m.replace('-', '_')}", min=1, max=max_length) if max_length > 1 else None
        shapes += 2 * [{0: batch, 1: steps}]
        size = (3, min(max_length, 5 + i))
        example += [random_features(predictor, m, size), torch.ones(size, dtype=torch.bool)]
    positional = PositionalModel(model, list(predictor.widths)).eval()
    with (
        external_errors(f"{predictor.folder}: PyTorch {torch.__version__} cannot export the model"),
        _dynamic_lstm(model),
    ):
        # strict, since `len(x)` in a model would make the batch size static
        program = torch.export.export(
            positional, tuple(example), dynamic_shapes=(tuple(shapes),), strict=True
        )
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # contains paths of this machine
    return program


def _dynamic_lstm(model: Model) -> AbstractContextManager[None]:
    """Let PyTorch export an LSTM with dynamic length, as a single operation of the graph."""
    if not any(isinstance(part, nn.LSTM) for part in model.modules()):
        return nullcontext()
    from torch.export._patches import register_lstm_while_loop_decomposition

    manager: AbstractContextManager[None] = register_lstm_while_loop_decomposition()
    return manager


class ModelFile(Protocol):
    """Model in an export format."""

    needs: ClassVar[tuple[str, ...]]
    """Required packages that carat does not depend on."""

    @classmethod
    def make(cls, predictor: Predictor, inputs: list[str], outputs: list[str]) -> ModelFile:
        """Export the model of a run.

        Args:
            predictor: predictor of the run.
            inputs: names of the inputs, if the format has names.
            outputs: names of the outputs, if the format has names.

        Raises:
            ExportError: PyTorch cannot export the model.
        """

    def write(self, file: Path, card: str) -> None:
        """Write the model with an embedded description.

        Raises:
            ExportError: the file cannot be written.
        """

    def open(self, file: Path) -> Score:
        """Load a written file as a user would.

        Raises:
            ExportError: the file cannot be loaded.
        """

    def quantize(self, scratch: Path) -> ModelFile:
        """Quantize the weights of linear layers to 8 bits.

        Args:
            scratch: temporary file, which is overwritten.

        Raises:
            ExportError: the format does not support quantization.
        """


class ProgramFile:
    """A `torch.export` program, `.pt2`.

    Args:
        program: exported program.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program

    @classmethod
    def make(cls, predictor: Predictor, inputs: list[str], outputs: list[str]) -> ProgramFile:
        return cls(capture(predictor))

    def write(self, file: Path, card: str) -> None:
        content = io.BytesIO()  # with a path, the archive would be named after the temporary file
        with external_errors(f"{file}: cannot be written"):
            torch.export.save(self.program, content, extra_files={CARD_FILE: card})
        file.write_bytes(content.getvalue())

    def open(self, file: Path) -> Score:
        with external_errors(f"{file}: cannot be loaded"):
            module = torch.export.load(file).module()

        @torch.inference_mode()
        def score(inputs: Sequence[Tensor]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            scores, attribution = module(*inputs)
            return scores.numpy(), attribution.numpy()

        return score

    def quantize(self, scratch: Path) -> ModelFile:
        raise ExportError(f"{scratch}: quantization is supported for .onnx only")


class OnnxFile:
    """An ONNX model, `.onnx`.

    Args:
        proto: the `onnx.ModelProto`.
        names: names of the inputs, in order.
    """

    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")

    def __init__(self, proto: Any, names: list[str]) -> None:
        self.proto, self.names = proto, names

    @classmethod
    def make(cls, predictor: Predictor, inputs: list[str], outputs: list[str]) -> OnnxFile:
        program = capture(predictor)
        problem = f"{predictor.folder}: PyTorch {torch.__version__} cannot convert the model to ONNX"
        with external_errors(problem), _dynamic_lstm(predictor.model):
            onnx_program = torch.onnx.export(
                program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False
            )
            assert onnx_program is not None
            proto: Any = onnx_program.model_proto
        graph = proto.graph
        for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
            part.ClearField("metadata_props")  # PyTorch stack traces, larger than small weights
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
        with external_errors(f"{file}: cannot be loaded"):
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

        def score(inputs: Sequence[Tensor]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            feed = {name: x.numpy() for name, x in zip(self.names, inputs, strict=True)}
            scores, attribution = session.run(None, feed)
            return scores, attribution

        return score

    def quantize(self, scratch: Path) -> ModelFile:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        graph = self.proto.graph
        stacked = {x.name for x in graph.initializer if len(x.dims) > 2}  # weights stacked over modalities
        with external_errors(f"{scratch}: cannot be quantized"):
            quantize_dynamic(
                self.proto,
                scratch,
                op_types_to_quantize=["MatMul"],  # onnxruntime converts Gemm to MatMul
                nodes_to_exclude=[node.name for node in graph.node if stacked & set(node.input)],
                per_channel=True,  # supported for matrices only
                weight_type=QuantType.QUInt8,  # QInt8 saturates on CPUs without VNNI
            )
        return OnnxFile(onnx.load(scratch), self.names)


KINDS: dict[str, type[ModelFile]] = {".onnx": OnnxFile, ".pt2": ProgramFile}
"""Formats by file extension."""


@contextmanager
def external_errors(problem: str) -> Iterator[None]:
    """Suppress the warnings of exporters and runtimes, and convert their errors to one-line `ExportError`."""
    previous_level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.simplefilter("ignore", category)
            yield
    except CaratError:
        raise
    except Exception as error:  # of any type
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"{problem} ({reason})") from error
    finally:
        logging.disable(previous_level)
