from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published import XRESNET, Reference, fastai_head, is_equal
from torch import Tensor, nn

from ecg_lightning.backbones import XResNet1d101, load_weights, ptbxl_benchmark
from ecg_lightning.backbones.xresnet1d import Bottleneck
from ecg_lightning.errors import InputError

TINY = {"stem": (2, 2, 4), "blocks": (2, 1, 1, 1), "width": 2, "num_time_points": 100}
HEAD = "8."


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.read("xresnet1d101")


@pytest.fixture(scope="module")
def whole(reference, tmp_path_factory) -> XResNet1d101:
    """Loaded once; what a test slips in, it slips in by ``monkeypatch``."""
    backbone = XResNet1d101()
    reference.load_into(backbone, tmp_path_factory.mktemp("xresnet"), beside={"opt": {}})
    return backbone.eval()


def equals_the_reference(backbone: XResNet1d101, reference: Reference) -> bool:
    differences = reference.differences(backbone, time_last=True, head=fastai_head(reference, HEAD))
    assert differences.keys() == {"tokens", "pooled", "penultimate", "logits"}
    return is_equal(differences, XRESNET, XRESNET)


def test_the_network_equals_the_published_code_through_the_published_head(whole, reference):
    assert equals_the_reference(whole, reference)


# --- slips that the reference must tell ---


def mean_first(tokens: Tensor) -> Tensor:
    return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1)


def test_the_mean_in_front_of_the_maximum_breaks_equality(whole, reference, monkeypatch):
    monkeypatch.setattr(ptbxl_benchmark, "max_and_mean", mean_first)
    assert not equals_the_reference(whole, reference)


def zero_behind(x: Tensor) -> Tensor:
    return F.avg_pool1d(F.pad(x, (0, x.shape[-1] % 2)), 2)


def zero_in_front(x: Tensor) -> Tensor:
    return F.avg_pool1d(F.pad(x, (x.shape[-1] % 2, 0)), 2)


def one_of_two(x: Tensor) -> Tensor:
    return x[..., ::2]


def largest_of_two(x: Tensor) -> Tensor:
    return F.max_pool1d(x, 2, ceil_mode=True)


@pytest.mark.parametrize("pool", [zero_behind, zero_in_front, one_of_two, largest_of_two])
def test_another_pool_of_the_shortcut_breaks_equality(pool, whole, reference, monkeypatch):
    def shortcut(block: Bottleneck, x: Tensor) -> Tensor:
        return block.projection(pool(x) if block.stride == 2 else x)

    monkeypatch.setattr(Bottleneck, "shortcut", shortcut)
    assert not equals_the_reference(whole, reference)


def relu_before_the_sum(block: Bottleneck, x: Tensor) -> Tensor:
    return block.shortcut(x) + F.relu(block.branch(x))


def no_relu(block: Bottleneck, x: Tensor) -> Tensor:
    return block.shortcut(x) + block.branch(x)


@pytest.mark.parametrize("forward", [relu_before_the_sum, no_relu])
def test_another_place_of_the_last_activation_breaks_equality(forward, whole, reference, monkeypatch):
    monkeypatch.setattr(Bottleneck, "forward", forward)
    assert not equals_the_reference(whole, reference)


def long_convolutions(backbone: XResNet1d101) -> list[nn.Conv1d]:
    return [module for module in backbone.modules() if isinstance(module, nn.Conv1d) and module.kernel_size == (5,)]


@pytest.mark.parametrize(("mode", "sides"), [("constant", [3, 1]), ("constant", [4, 0]), ("replicate", [2, 2])])
def test_other_padding_of_the_convolutions_breaks_equality(mode, sides, whole, reference, monkeypatch):
    assert len(long_convolutions(whole)) == 3 + 33
    for conv in long_convolutions(whole):
        monkeypatch.setattr(conv, "padding_mode", mode)
        monkeypatch.setattr(conv, "_reversed_padding_repeated_twice", sides)
    assert not equals_the_reference(whole, reference)


def test_the_padding_in_full_is_what_is_slipped_in_above(whole, reference, monkeypatch):
    for conv in long_convolutions(whole):
        monkeypatch.setattr(conv, "padding_mode", "constant")
        monkeypatch.setattr(conv, "_reversed_padding_repeated_twice", [2, 2])
    assert equals_the_reference(whole, reference)


def test_halving_in_the_first_convolution_of_a_block_breaks_equality(whole, reference, monkeypatch):
    for stage in list(whole.stages)[1:]:
        first, second = (conv[0] for conv in stage[0].convs[:2])
        monkeypatch.setattr(first, "stride", (2,))
        monkeypatch.setattr(second, "stride", (1,))
    assert not equals_the_reference(whole, reference)


def test_another_eps_of_the_norms_breaks_equality(whole, reference, monkeypatch):
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm1d):
            monkeypatch.setattr(module, "eps", 1e-3)
    assert not equals_the_reference(whole, reference)


# --- files ---


def write(path, state: dict[str, Tensor], *, new_format: bool = True) -> None:
    """As fastai v1 saves a learner: the optimizer's state beside the weights, rates that numpy's cosine made."""
    weights = [tensor.clone().requires_grad_() for tensor in state.values() if tensor.is_floating_point()]
    optimizer = torch.optim.Adam(weights, lr=np.float64(1e-2), betas=(np.float64(0.95), 0.99))
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    contents = {"model": state, "opt": optimizer.state_dict()}
    torch.save(contents, path, _use_new_zipfile_serialization=new_format)


def published(backbone: XResNet1d101, rename: Callable[[str], list[str]]) -> dict[str, Tensor]:
    """The state under published names; ``rename``: how a block's convolutions are called in it."""
    state = {}
    for name, tensor in backbone.state_dict().items():
        parts = name.split(".", 3)
        if parts[0] == "stem":
            state[name.removeprefix("stem.")] = tensor
        elif parts[3].startswith("projection."):
            state[f"{4 + int(parts[1])}.{parts[2]}.idpath.0.{parts[3].removeprefix('projection.')}"] = tensor
        else:
            for spelling in rename(parts[3]):
                state[f"{4 + int(parts[1])}.{parts[2]}.{spelling}"] = tensor
    return state | {"8.2.weight": torch.ones(16), "8.4.weight": torch.ones(128, 16)}


def first(name: str) -> list[str]:
    return [name]


def second(name: str) -> list[str]:
    return [name.replace("convs.", "convpath.0.", 1)]


def both(name: str) -> list[str]:
    return [*first(name), *second(name)]


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("spelling", [first, second, both])
def test_a_file_of_fastai_loads_whichever_names_it_has(spelling, new_format, tmp_path):
    source, target = XResNet1d101(**TINY), XResNet1d101(**TINY)
    write(tmp_path / "m.pth", published(source, spelling), new_format=new_format)
    report = load_weights(target, tmp_path / "m.pth")
    assert report.dropped == ("8.2.weight", "8.4.weight")
    own = target.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in source.state_dict().items())


def test_a_file_whose_two_names_of_a_tensor_differ_is_refused_by_both_names(tmp_path):
    backbone = XResNet1d101(**TINY)
    state = published(backbone, both)
    state["5.0.convpath.0.1.0.weight"] = state["5.0.convpath.0.1.0.weight"] + 1e-6
    write(tmp_path / "m.pth", state)
    before = backbone.stages[1][0].convs[1][0].weight.clone()
    names = "5.0.convs.1.0.weight and 5.0.convpath.0.1.0.weight for stages.1.0.convs.1.0.weight"
    with pytest.raises(InputError, match=f"two names that differ: {names}: keep the right one"):
        load_weights(backbone, tmp_path / "m.pth")
    assert torch.equal(backbone.stages[1][0].convs[1][0].weight, before)


def test_the_published_file_holds_every_convolution_of_a_block_twice(reference):
    assert len(reference.aliases) == 33 * 18
    assert reference.aliases.keys() < reference.state.keys()


def test_the_references_table_of_names_is_the_networks(whole, reference):
    translated = {whole.own_name(published) for published in reference.state}
    assert translated == whole.state_dict().keys() | {None}


def test_only_the_first_block_has_a_convolution_in_its_shortcut(whole):
    blocks = [block for stage in whole.stages for block in stage]
    assert [not isinstance(block.projection, nn.Identity) for block in blocks] == [True] + [False] * 32
    assert [index for index, block in enumerate(blocks) if block.stride == 2] == [3, 7, 30]


# --- sizes ---


def test_parameters_are_as_many_as_published_without_the_head(whole, reference):
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    head = [shape for name, shape in reference.shapes.items() if name.startswith(HEAD) and not name.endswith(buffers)]
    own = sum(parameter.numel() for parameter in whole.parameters())
    assert own + sum(int(np.prod(shape)) for shape in head) == 1_880_775


def test_250_time_points_become_8_time_steps_by_way_of_the_published_lengths(whole):
    lengths = []
    handles = [stage.register_forward_hook(lambda *args: lengths.append(args[2].shape[-1])) for stage in whole.stages]
    with torch.no_grad():
        assert whole.tokens(torch.zeros(1, 12, 250)).shape == (1, 8, 256)
    for handle in handles:
        handle.remove()
    assert lengths == [63, 32, 16, 8]


def test_other_lengths_of_input_run():
    assert XResNet1d101(**TINY).tokens(torch.randn(2, 12, 333)).shape == (2, 11, 8)


def test_input_with_other_leads_is_refused():
    with pytest.raises(InputError, match=r"takes \(batch, 12 leads.*\(2, 8, 250\)"):
        XResNet1d101(**TINY)(torch.zeros(2, 8, 250))


def test_all_sizes_that_do_not_fit_are_named():
    with pytest.raises(InputError) as error:
        XResNet1d101(stem=(32, 64), blocks=(3, 4, 0, 3), width=0, kernel=4)
    for words in (
        "stem is [32, 64], it must be 3 numbers",
        "blocks is [3, 4, 0, 3], it must be 4 numbers",
        "width is 0",
        "kernel is 4, it must be odd",
    ):
        assert words in str(error.value)


# --- stochastic depth and initial values ---


def test_a_dropped_block_leaves_relu_of_the_pooled_shortcut():
    block = Bottleneck(1, 8, 2, kernel=5, stride=2).train()
    block.drop.drop_prob = 1.0
    x = torch.randn(2, 8, 9)
    y = block(x)
    assert torch.equal(y[..., :4], (0.5 * x[..., 0:8:2] + 0.5 * x[..., 1:8:2]).clamp(min=0))
    assert torch.equal(y[..., 4], x[..., 8].clamp(min=0))


def test_blocks_are_counted_over_all_stages(whole):
    assert [block.drop.block for stage in whole.stages for block in stage] == list(range(33))


def test_initial_values_are_as_in_the_published_training():
    torch.manual_seed(0)
    for module in XResNet1d101().modules():
        if isinstance(module, nn.Conv1d):
            assert module.bias is None
            fan_in = module.in_channels * module.kernel_size[0]
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        elif isinstance(module, nn.BatchNorm1d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
