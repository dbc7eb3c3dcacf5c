import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published import Reference, fastai_head, is_equal
from torch import Tensor, nn

from ecg_lightning.backbones import Inception1d, load_weights, ptbxl_benchmark
from ecg_lightning.backbones.inception1d import InceptionBlock, InceptionModule
from ecg_lightning.errors import InputError

TINY = {"bottleneck": 2, "filters": 2, "kernels": (5, 3), "num_time_points": 50}
HEAD = "layers.1."
TOKENS = 1e-5
"""Float32 differs from float64 by up to 2.7e-6."""


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.read("inception1d")


@pytest.fixture(scope="module")
def whole(reference, tmp_path_factory) -> Inception1d:
    """Loaded once; what a test slips in, it slips in by ``monkeypatch``."""
    backbone = Inception1d()
    reference.load_into(backbone, tmp_path_factory.mktemp("inception"), beside={"opt": {}})
    return backbone.eval()


def equals_the_reference(backbone: Inception1d, reference: Reference, *, time_last: bool = False) -> bool:
    differences = reference.differences(backbone, time_last=time_last, head=fastai_head(reference, HEAD))
    assert differences.keys() == {"tokens", "pooled", "penultimate", "logits"}
    return is_equal(differences, TOKENS)


def test_the_network_equals_the_published_code_through_the_published_head(whole, reference):
    assert equals_the_reference(whole, reference)


def test_the_network_equals_the_published_code_at_every_time_step(whole, shared):
    assert equals_the_reference(whole, Reference.read("inception1d", shared / "references"), time_last=True)


# --- slips that the reference must tell ---


def test_the_mean_in_front_of_the_maximum_breaks_equality(whole, reference, monkeypatch):
    monkeypatch.setattr(
        ptbxl_benchmark, "max_and_mean", lambda tokens: torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1)
    )
    assert not equals_the_reference(whole, reference)


def paths(module: InceptionModule, x: Tensor, pooled: Tensor) -> list[Tensor]:
    narrow = module.bottleneck(x)
    return [*(conv(narrow) for conv in module.convs), module.pooled_conv(pooled)]


def largest(x: Tensor) -> Tensor:
    return F.max_pool1d(x, 3, stride=1, padding=1)


def pooled_path_first(module: InceptionModule, x: Tensor) -> Tensor:
    *convs, pooled = paths(module, x, largest(x))
    return F.relu(module.norm(torch.cat([pooled, *convs], dim=1)))


def shortest_kernel_first(module: InceptionModule, x: Tensor) -> Tensor:
    *convs, pooled = paths(module, x, largest(x))
    return F.relu(module.norm(torch.cat([*convs[::-1], pooled], dim=1)))


def mean_pool(module: InceptionModule, x: Tensor) -> Tensor:
    return F.relu(module.norm(torch.cat(paths(module, x, F.avg_pool1d(x, 3, stride=1, padding=1)), dim=1)))


def zeros_around_the_pool(module: InceptionModule, x: Tensor) -> Tensor:
    return F.relu(module.norm(torch.cat(paths(module, x, F.max_pool1d(F.pad(x, (1, 1)), 3, stride=1)), dim=1)))


def pool_looks_back(module: InceptionModule, x: Tensor) -> Tensor:
    behind = F.max_pool1d(F.pad(x, (2, 0), value=-torch.inf), 3, stride=1)
    return F.relu(module.norm(torch.cat(paths(module, x, behind), dim=1)))


def convolution_before_the_pool(module: InceptionModule, x: Tensor) -> Tensor:
    narrow = module.bottleneck(x)
    outputs = [*(conv(narrow) for conv in module.convs), largest(module.pooled_conv(x))]
    return F.relu(module.norm(torch.cat(outputs, dim=1)))


def no_relu(module: InceptionModule, x: Tensor) -> Tensor:
    return module.norm(torch.cat(paths(module, x, largest(x)), dim=1))


@pytest.mark.parametrize(
    "forward",
    [
        pooled_path_first,
        shortest_kernel_first,
        mean_pool,
        zeros_around_the_pool,
        pool_looks_back,
        convolution_before_the_pool,
        no_relu,
    ],
)
def test_another_module_breaks_equality(forward, whole, reference, monkeypatch):
    monkeypatch.setattr(InceptionModule, "forward", forward)
    assert not equals_the_reference(whole, reference)


def relu_before_the_sum(block: InceptionBlock, x: Tensor) -> Tensor:
    return F.relu(block.shortcut(x)) + block.branch(x)


def relu_on_neither(block: InceptionBlock, x: Tensor) -> Tensor:
    return block.shortcut(x) + block.branch(x)


@pytest.mark.parametrize("forward", [relu_before_the_sum, relu_on_neither])
def test_another_place_of_the_last_activation_breaks_equality(forward, whole, reference, monkeypatch):
    monkeypatch.setattr(InceptionBlock, "forward", forward)
    assert not equals_the_reference(whole, reference)


@pytest.mark.parametrize("shift", [-1, 1])
def test_kernels_padded_off_their_middle_break_equality(shift, whole, reference, monkeypatch):
    for module in whole.modules():
        if isinstance(module, nn.Conv1d) and module.kernel_size[0] > 1:
            (half,) = module.padding
            monkeypatch.setattr(module, "padding_mode", "constant")
            monkeypatch.setattr(module, "_reversed_padding_repeated_twice", [half + shift, half - shift])
    assert not equals_the_reference(whole, reference)


def test_another_eps_of_the_norms_breaks_equality(whole, reference, monkeypatch):
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm1d):
            monkeypatch.setattr(module, "eps", 1e-3)
    assert not equals_the_reference(whole, reference)


# --- files ---


def test_the_head_is_dropped_by_name(reference, tmp_path):
    report = reference.load_into(Inception1d(), tmp_path)
    assert set(report.dropped) == {name for name in reference.shapes if name.startswith(HEAD)}
    assert "72 tensors loaded; 14 dropped by name (layers.*.*)" in str(report)


def test_the_references_table_of_names_is_the_networks(whole, reference):
    translated = [whole.own_name(published) for published in reference.shapes]
    assert {*translated} == whole.state_dict().keys() | {None}
    assert len(translated) == len(whole.state_dict()) + 14


def test_a_file_of_more_modules_is_refused_by_name(tmp_path):
    torch.save({"model": Inception1d(depth=6, **TINY).state_dict()}, tmp_path / "m.pth")
    with pytest.raises(InputError, match=r"unexpected: blocks\.1\.inceptions\.0"):
        load_weights(Inception1d(depth=3, **TINY), tmp_path / "m.pth")


# --- sizes ---


def test_parameters_are_as_many_as_published_without_the_head(whole, reference):
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    head = [shape for name, shape in reference.shapes.items() if name.startswith(HEAD) and not name.endswith(buffers)]
    own = sum(parameter.numel() for parameter in whole.parameters())
    assert own + sum(int(np.prod(shape)) for shape in head) == 516_167


def test_time_is_not_shortened_and_other_lengths_run():
    assert Inception1d(**TINY).tokens(torch.randn(2, 12, 33)).shape == (2, 33, 6)


def test_input_with_other_leads_is_refused():
    with pytest.raises(InputError, match=r"takes \(batch, 12 leads.*\(2, 8, 250\)"):
        Inception1d(**TINY)(torch.zeros(2, 8, 250))


def test_all_sizes_that_do_not_fit_are_named():
    with pytest.raises(InputError) as error:
        Inception1d(depth=4, kernels=(39, 20), filters=0)
    for words in ("filters is 0", "depth is 4, it must be a multiple of 3", "kernels is [39, 20], it must be one"):
        assert words in str(error.value)


# --- layers, stochastic depth, initial values ---


def test_each_module_is_a_layer_and_a_shortcut_lies_in_that_of_the_last_module_around_which_it_runs():
    backbone = Inception1d(**TINY)
    layers = {name.rpartition(".")[0]: backbone.layer_of(name) for name, _ in backbone.named_parameters()}
    assert layers["blocks.0.inceptions.0.bottleneck"] == 0
    assert layers["blocks.1.inceptions.1.convs.1"] == 4
    assert (layers["blocks.0.projection.0"], layers["blocks.1.projection.1"]) == (2, 5)


def test_a_dropped_block_leaves_relu_of_the_shortcut_alone():
    backbone = Inception1d(**TINY).train()
    block = backbone.blocks[1]
    block.drop.drop_prob = 1.0
    x = torch.randn(3, 6, 20)
    conv, norm = block.projection
    assert torch.equal(block(x), F.relu(norm(conv(x))))


def test_initial_values_are_as_in_the_published_training():
    torch.manual_seed(0)
    for module in Inception1d().modules():
        if isinstance(module, nn.Conv1d):
            assert module.bias is None
            fan_in = module.in_channels * module.kernel_size[0]
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)
        elif isinstance(module, nn.BatchNorm1d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
