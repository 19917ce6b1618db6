"""Copying weights between models whose labels, modalities, sizes or methods differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import carat
from carat.config.experiment import load_experiment
from carat.config.methods import METHODS, MethodConfig
from carat.models.base import Model, ModelOutputs
from carat.models.build import build_model
from carat.models.transfer import ModelState, Transferred, shorten_names, transfer_weights
from carat.runs.card import ModalityCard

WIDTHS = {"text": 7, "visual": 13, "audio": 11}
LABELS = ["happy", "sad", "anger", "surprise", "fear"]
TRAINABLE = ["carat", "linear", "early-fusion", "late-fusion", "mult", "misa", "tailor", "amp", "lddu"]


def config(method: str, **changes: Any) -> MethodConfig:
    return load_experiment(preset="small", overrides={"method": {"name": method} | changes}).method


def make(method: str, widths: Mapping[str, int], labels: Sequence[str], seed: int, **changes: Any) -> Model:
    """A model all of whose parameters and buffers are random."""
    torch.manual_seed(seed)
    model = build_model(config(method, **changes), widths, labels).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor + 0.1 * torch.randn(tensor.shape))
    return model


def cards(widths: Mapping[str, int]) -> dict[str, ModalityCard]:
    return {m: ModalityCard(width=d, source="made") for m, d in widths.items()}


def transfer(
    model: Model,
    method: str,
    widths: Mapping[str, int],
    source: Model,
    source_method: str,
    source_widths: Mapping[str, int],
    parts: Literal["all", "trunk", "encoder"] = "all",
) -> Transferred:
    state = {name: x.clone() for name, x in source.state_dict().items()}
    known = ModelState(config(source_method), {}, source.labels, cards(source_widths), state)
    return transfer_weights(model, config(method), cards(widths), known, parts)


def samples(widths: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Three samples, one of which lacks the last modality."""
    generator = torch.Generator().manual_seed(1)
    steps = {"text": 3, "visual": 4, "audio": 6}
    features = {m: torch.randn(3, steps[m], d, generator=generator) for m, d in WIDTHS.items()}
    masks = {m: torch.ones(3, steps[m], dtype=torch.bool) for m in WIDTHS}
    masks["audio"][1] = False
    return {m: features[m] for m in widths}, {m: masks[m] for m in widths}


def scores(model: Model, widths: Mapping[str, int]) -> Tensor:
    with torch.no_grad():
        return model.score(*samples(widths)).scores


@pytest.mark.parametrize("method", TRAINABLE)
def test_same_labels_and_modalities_give_the_same_weights(method: str) -> None:
    source, model = (make(method, WIDTHS, LABELS, seed) for seed in (1, 2))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    taken = transfer(model, method, WIDTHS, source, method, WIDTHS)
    assert taken.labels == LABELS
    assert not taken.initial
    for name, tensor in model.state_dict().items():
        expected = before if "memory_bank" in name else source.state_dict()
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("method", TRAINABLE)
def test_labels_are_matched_by_name(method: str) -> None:
    order = [3, 0, 4, 2, 1]
    source = make(method, WIDTHS, LABELS, 1)
    model = make(method, WIDTHS, [LABELS[i] for i in order], 2)
    transfer(model, method, WIDTHS, source, method, WIDTHS)
    assert torch.allclose(scores(model, WIDTHS), scores(source, WIDTHS)[:, order], atol=1e-6)


@pytest.mark.parametrize("method", ["carat", "linear", "late-fusion", "misa", "amp", "lddu"])
def test_modalities_are_matched_by_name(method: str) -> None:
    widths = {m: WIDTHS[m] for m in ("audio", "text", "visual")}
    source, model = make(method, WIDTHS, LABELS, 1), make(method, widths, LABELS, 2)
    transfer(model, method, widths, source, method, WIDTHS)
    assert torch.allclose(scores(model, widths), scores(source, WIDTHS), atol=1e-6)


@pytest.mark.parametrize("method", ["early-fusion", "mult", "tailor"])
def test_what_depends_on_the_order_of_modalities_is_not_copied(method: str) -> None:
    widths = {m: WIDTHS[m] for m in ("audio", "text", "visual")}
    source, model = make(method, WIDTHS, LABELS, 1), make(method, widths, LABELS, 2)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    taken = transfer(model, method, widths, source, method, WIDTHS)
    prefix = {"early-fusion": "encoder.encoder.project.weight", "mult": "own.", "tailor": "fusions."}[method]
    ordered = [name for name in before if name.startswith(prefix)]
    assert ordered
    assert set(ordered) <= set(taken.initial)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in ordered)
    assert taken.copied


@pytest.mark.parametrize("method", TRAINABLE)
def test_trunk_does_not_depend_on_labels(method: str) -> None:
    source = make(method, WIDTHS, LABELS, 1)
    results = []
    for labels in (["happy", "calm"], ["calm", "bored"]):
        model = make(method, WIDTHS, labels, 2)
        before = {name: x.clone() for name, x in model.state_dict().items()}
        taken = transfer(model, method, WIDTHS, source, method, WIDTHS, "trunk")
        assert not taken.labels
        results.append(set(taken.copied))
        for name, tensor in model.state_dict().items():
            expected = source.state_dict() if name in taken.copied else before
            assert torch.equal(tensor, expected[name]), name
    assert results[0] == results[1]
    assert bool(results[0]) == (method != "linear")


def test_new_labels_and_modalities_keep_their_initial_values() -> None:
    widths, labels = {"video": 3, "text": 7, "audio": 17}, ["fear", "calm", "happy"]
    source, model = make("carat", WIDTHS, LABELS, 1), make("carat", widths, labels, 2)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    taken = transfer(model, "carat", widths, source, "carat", WIDTHS)
    assert taken.labels == ["fear", "happy"]
    after, trained = model.state_dict(), source.state_dict()

    classifier = before["network.classifier"].clone()
    for m, old_m in ((1, 0), (2, 2)):
        for label, old_label in ((0, 4), (2, 0)):
            classifier[m, label] = trained["network.classifier"][old_m, old_label]
    assert torch.equal(after["network.classifier"], classifier)

    hidden, name = model.network.hidden, "network.aggregation.first.weight"
    first = before[name].clone()
    first[:, :hidden] = trained[name][:, 4 * hidden :]
    first[:, 2 * hidden :] = trained[name][:, :hidden]
    assert torch.equal(after[name], first)

    name = "network.reconstruction.rebuild.weight"
    rebuild = before[name].clone()
    for target, old_target in ((1, 0), (2, 2)):
        for m, old_m in ((1, 0), (2, 2)):
            rows, old_rows = (slice(i * hidden, (i + 1) * hidden) for i in (m, old_m))
            rebuild[target, rows] = trained[name][old_target, old_rows]
    assert torch.equal(after[name], rebuild)

    assert torch.equal(
        after["network.encoder.text.project.weight"], trained["network.encoder.text.project.weight"]
    )
    for name in ("network.encoder.audio.project.weight", "network.input_norm.audio.weight"):  # another width
        assert torch.equal(after[name], before[name])
        assert name in taken.initial
    layer = "network.encoder.audio.layers.0.linear1.weight"
    assert torch.equal(after[layer], trained[layer])
    assert all(torch.equal(after[x], before[x]) for x in before if x.startswith("network.encoder.video."))


def test_layers_of_other_widths_are_not_taken_in_parts() -> None:
    source, model = make("carat", WIDTHS, LABELS, 1), make("carat", WIDTHS, LABELS, 2, hidden=20)
    taken = transfer(model, "carat", WIDTHS, source, "carat", WIDTHS)
    assert taken.copied == [
        *(f"network.input_norm.{m}.{kind}" for m in WIDTHS for kind in ("weight", "bias")),
        "network.prototypes.means",
    ]


def test_positions_are_matched_from_the_first_one() -> None:
    changes = {"encoder": {"max_length": 20}}
    source, model = make("carat", WIDTHS, LABELS, 1), make("carat", WIDTHS, LABELS, 2, **changes)
    transfer(model, "carat", WIDTHS, source, "carat", WIDTHS)
    name = "network.encoder.text.positions"
    assert torch.equal(model.state_dict()[name], source.state_dict()[name][:20])


def test_shared_attention_is_not_copied_to_attention_by_label() -> None:
    source = make("carat", WIDTHS, LABELS, 1, label_wise=False)
    model = make("carat", WIDTHS, LABELS, 2)
    taken = transfer(model, "carat", WIDTHS, source, "carat", WIDTHS)
    assert "network.label_attention.text.score.weight" in taken.initial
    shared = make("carat", WIDTHS, ["calm", "bored"], 2, label_wise=False)
    taken = transfer(shared, "carat", WIDTHS, source, "carat", WIDTHS, "trunk")
    assert "network.label_attention.text.score.weight" in taken.copied


def test_other_methods_share_sequence_encoders_only() -> None:
    encoder = {"encoder": {"layers": 1, "heads": 2, "feedforward": 13, "max_length": 30}, "hidden": 16}
    source = make("late-fusion", WIDTHS, LABELS, 1, **encoder)
    model = make("misa", WIDTHS, LABELS, 2, **encoder)
    taken = transfer(model, "misa", WIDTHS, source, "late-fusion", WIDTHS)
    assert set(taken.copied) == {name for name in model.state_dict() if name.startswith("encoders.")}
    assert torch.equal(
        model.state_dict()["encoders.text.norm.weight"], source.state_dict()["encoders.text.norm.weight"]
    )


@pytest.mark.parametrize("method", ["br", "prior"])
def test_fitted_methods_take_nothing(method: str) -> None:
    source, model = (make(method, WIDTHS, LABELS, seed) for seed in (1, 2))
    assert not transfer(model, method, WIDTHS, source, method, WIDTHS).copied


@pytest.fixture
def _registry() -> Iterator[None]:
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.mark.usefixtures("_registry")
def test_registered_method_needs_no_declaration() -> None:
    @carat.register_method("toy")
    class Toy(carat.Model):
        def __init__(self, widths: Mapping[str, int], labels: Sequence[str], config: Any = None) -> None:
            super().__init__(widths, labels)
            self.inputs = nn.ModuleDict({m: nn.Linear(d, 17) for m, d in widths.items()})
            self.output = nn.Linear(17, len(labels))

        def forward(self, features: Any, masks: Any) -> Any:
            mean = torch.stack([self.inputs[m](features[m]).mean(1) for m in self.inputs]).mean(0)
            return ModelOutputs.from_logits(self.output(mean))

        def losses(self, outputs: Any, labels: Any, generator: Any = None) -> Any: ...

    order = [2, 0, 4, 1, 3]
    source = make("toy", WIDTHS, LABELS, 1)
    model = make("toy", WIDTHS, [LABELS[i] for i in order], 2)
    transfer(model, "toy", WIDTHS, source, "toy", WIDTHS)
    assert torch.allclose(scores(model, WIDTHS), scores(source, WIDTHS)[:, order], atol=1e-6)
    fewer = make("toy", {"text": 7}, ["fear"], 3)
    before = fewer.state_dict()["output.bias"].clone()
    taken = transfer(fewer, "toy", {"text": 7}, source, "toy", WIDTHS, "trunk")
    assert set(taken.copied) == {"inputs.text.weight", "inputs.text.bias"}
    assert torch.equal(fewer.state_dict()["output.bias"], before)
    ambiguous = WIDTHS | {"visual": len(LABELS)}
    source, model = make("toy", ambiguous, LABELS, 1), make("toy", ambiguous, LABELS[::-1], 2)
    assert transfer(model, "toy", ambiguous, source, "toy", ambiguous).initial == [
        "inputs.visual.weight",
        "inputs.visual.bias",
    ]


def test_names_of_whole_parts_are_shortened() -> None:
    names = ["a.x.weight", "a.x.bias", "c.weight", "c.bias", "b.weight"]
    assert shorten_names(names, ["a.y.weight", "b.bias"]) == ["a.x", "c", "b.weight"]
