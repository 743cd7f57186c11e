"""Without a GPU: training steps and scoring that mix no devices and read no value on the host.

Fake tensors of `cuda:0` have a device and a shape, but no values: an operation on tensors of two devices fails, and so
does reading a value, for which the host would wait for a GPU. Their backward pass needs a driver: the CPU's stands for
it.
"""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from toy import ToyLoader, ToyNetwork, ToyRecorder, ToySignals, toy_trainer

import utils.ema
from engine import Settings, Trainer
from modeling import BACKBONES, HEADS, build_model
from modeling.aspp import ImagePooling
from utils.distributed.device import AMP_TYPES
from utils.ema import AveragedNetwork
from utils.inference import Predictor
from utils.losses import LOSSES, build_loss
from utils.optim import build_optimizer
from utils.scoring.loop import score

CUDA = torch.device("cuda", 0)
VERSION = tuple(int(number) for number in torch.__version__.split(".")[:2])
SIDE, K = 65, 3
aten = torch.ops.aten
HOST_READS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.bincount, aten._unique2,
}  # fmt: skip
NETWORKS = [(name, "separable") for name in BACKBONES] + [("mobilenet", head) for head in HEADS if head != "separable"]


class Event:
    """Stands for torch.cuda.Event, which needs a driver."""

    def record(self) -> None: ...
    def synchronize(self) -> None: ...


@pytest.fixture
def fake(monkeypatch):
    if VERSION < (2, 14) and not torch.cuda.is_available():
        pytest.skip("older PyTorch asks the driver for fake convolutions: 2.6 does, 2.14 does not")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    # Otherwise autocast and the scaler turn themselves off
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    unpinned = partial(torch.tensor, dtype=torch.float64)
    monkeypatch.setattr("utils.distributed.sums.on_host", lambda values, place: unpinned(values))
    with FakeTensorMode() as mode:
        yield mode


def on_cuda(module: nn.Module) -> nn.Module:
    """`module`, built on the meta device or the CPU, with fake tensors of the GPU instead of its own."""
    for layer in module.modules():
        for name, old in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(torch.empty(old.shape, device=CUDA)))
        for name, old in list(layer.named_buffers(recurse=False)):
            setattr(layer, name, torch.empty(old.shape, dtype=old.dtype, device=CUDA))
    return module


def network(backbone: str = "mobilenet", head: str = "separable") -> nn.Module:
    with unset_fake_temporarily(), torch.device("meta"):
        model = build_model(backbone, K, head=head)
    return on_cuda(model)


def batch(size: int, height: int = SIDE, width: int = SIDE) -> dict:
    image = torch.zeros(size, 3, height, width, dtype=torch.uint8)
    return {"image": image, "label": image[:, 0], "id": ["x"] * size}


def fake_trainer(model: nn.Module, loss: str, monkeypatch, **settings: object) -> Trainer:
    """Its backward pass only allocates the gradients, since the real one asks the driver for its streams; fused SGD,
    which has no fake form, only checks what it gets.
    """

    def backward(total: torch.Tensor) -> None:
        assert total.device == CUDA and total.grad_fn is not None
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)

    def fused_sgd(parameters, gradients, buffers, *, grad_scale, found_inf, **_settings) -> None:
        assert len(parameters) == len(gradients) == len(buffers)
        assert {each.device for each in (*parameters, *gradients, *buffers, grad_scale, found_inf)} == {CUDA}
        assert grad_scale.dtype == found_inf.dtype == torch.float32

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(torch, "_fused_sgd_", fused_sgd)
    monkeypatch.setattr(model, "to", lambda memory_format: model)  # fake parameters cannot be replaced
    criterion = on_cuda(build_loss(loss, class_weights=[1.0] * K))
    optimizer = build_optimizer(
        model, model.backbone, lr=0.1, head_lr_factor=1.0, weight_decay=1e-4, momentum=0.9, nesterov=False
    )
    return Trainer(
        model, criterion, optimizer, lambda step: 1.0, ToyLoader(3, {}), None,
        settings=Settings(**{"epochs": 1, "batch_size": 2, "channels_last": True} | settings), classes="abc",
        recorder=ToyRecorder({}), signals=ToySignals(), device=CUDA,
    )  # fmt: skip


def test_fake_tensors_notice_two_devices_and_a_value_read_on_the_host(fake):
    with pytest.raises(RuntimeError, match="devices"):
        torch.zeros(2, device=CUDA) + torch.zeros(2)
    with pytest.raises(DataDependentOutputException):
        torch.zeros(1, device=CUDA).item()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("amp", AMP_TYPES)
@pytest.mark.parametrize("is_deterministic", [False, True], ids=["", "deterministic"])
def test_a_step_reads_nothing_on_the_host(fake, loss, amp, is_deterministic, monkeypatch):
    torch.use_deterministic_algorithms(is_deterministic)
    with unset_fake_temporarily(), torch.device("meta"):
        model = ToyNetwork()
    model.backbone = model.conv
    trainer, dtypes = fake_trainer(on_cuda(model), loss, monkeypatch, amp=amp), []
    model.register_forward_hook(lambda layer, inputs, logits: dtypes.append(logits.dtype))
    for step in (1, 2):
        launched = trainer.train_step([batch(2)])
        assert launched.number == step and launched.sums.tensor.device == CUDA
    assert trainer.lag == 1 and set(dtypes) == {AMP_TYPES[amp] or torch.float32}


def test_averaged_weights_and_momentum_are_on_the_device(fake, monkeypatch):
    copying = SimpleNamespace(deepcopy=lambda model: network())  # a real deep copy makes a fake mode of its own
    monkeypatch.setattr(utils.ema, "copy", copying)
    trainer = fake_trainer(network(), "ce", monkeypatch, amp="fp16", accumulate=2, ema_decay=0.9)
    for _ in range(3):
        trainer.train_step([batch(2), batch(2)])
    buffers = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    assert {each.device for each in (*buffers, *trainer.ema.averaged)} == {CUDA}


class NoHostRead(TorchDispatchMode):
    """Fails at an operation that makes the host wait for a value or for a number of values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket not in HOST_READS, f"{function} waits for a GPU"
        is_index = function.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
        assert not (is_index and any(each is not None and each.dtype == torch.bool for each in args[1])), "a mask waits"
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("read", [torch.Tensor.item, torch.nonzero, lambda tensor: tensor[tensor > 0], bool])
def test_reads_on_the_host_are_noticed(read):
    with NoHostRead(), pytest.raises(AssertionError, match="waits"):
        read(torch.ones(1))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_step_with_its_backward_pass_reads_nothing_on_the_host(loss, amp):
    trainer = toy_trainer(criterion=build_loss(loss, class_weights=[1.0, 2.0, 3.0]), amp=amp, ema_decay=0.9)
    batches = list(trainer.train_loader)
    trainer.train_step(batches[:1])  # the scaler builds its state
    with NoHostRead():
        trainer.train_step(batches[1:])


@pytest.mark.parametrize(("backbone", "head"), NETWORKS)
def test_every_network_trains_on_one_device_without_upsampling_from_one_pixel(fake, backbone, head, monkeypatch):
    trainer = fake_trainer(network(backbone, head), "ce", monkeypatch)
    with UpsamplingFromOnePixel():
        assert trainer.train_step([batch(2)]).sums.tensor.device == CUDA


@pytest.mark.parametrize(
    "how", [{}, {"scales": (0.5, 1.0), "flip": True}, {"window": (33, 49), "stride": (32, 30), "flip": True}]
)
def test_scoring_reads_nothing_on_the_host(fake, how):
    predictor = Predictor(network(), CUDA, amp="bf16", **how)
    confusion = score(predictor, [batch(1, 50, 70)], num_classes=K, device=CUDA)
    assert confusion.counts.device == CUDA and predictor(batch(1)["image"]).device == CUDA


class UpsamplingFromOnePixel(TorchDispatchMode):
    """Fails at a bilinear upsampling from 1x1, whose gradient CUDA adds up in the type of the map."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "upsample_bilinear" in str(function):
            assert args[0].shape[-2:] != (1, 1), "bilinear from 1x1: use expand"
        return function(*args, **kwargs or {})


def test_the_rule_notices_a_bilinear_upsampling_from_one_pixel():
    with UpsamplingFromOnePixel(), pytest.raises(AssertionError, match="use expand"):
        nn.functional.interpolate(torch.ones(1, 2, 1, 1), size=(5, 5), mode="bilinear", align_corners=True)


@pytest.mark.parametrize("head", HEADS)
def test_no_head_upsamples_bilinearly_from_one_pixel(head):
    """Also where the fake tensors are skipped."""
    with torch.device("meta"), UpsamplingFromOnePixel():
        build_model("mobilenet", K, head=head)(torch.empty(2, 3, SIDE, SIDE))


def test_image_pooling_is_the_upsampling_it_replaces_without_its_error_in_bf16():
    """CUDA's backward pass of bilinear upsampling adds each gradient to a cell of the map, in the map's type."""
    torch.manual_seed(0)
    pooling, features = ImagePooling(8, 4).eval(), torch.randn(2, 8, 33, 33)
    pooled = nn.Sequential.forward(pooling, features.mean((2, 3), keepdim=True))
    upsampled = nn.functional.interpolate(pooled, size=(33, 33), mode="bilinear", align_corners=True)
    assert torch.equal(pooling(features), upsampled)

    gradients = torch.rand(33 * 33).bfloat16()
    exact = gradients.double().sum()
    one_by_one = torch.zeros((), dtype=torch.bfloat16)
    for gradient in gradients:  # as atomic additions into one bf16 cell
        one_by_one += gradient
    leaf = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    leaf.expand(-1, -1, 33, 33).backward(gradients.view(1, 1, 33, 33))
    assert abs(one_by_one - exact) / exact > 0.02
    assert abs(leaf.grad.double() - exact) / exact < 0.004


def test_logits_are_upsampled_in_float32():
    model = build_model("mobilenet", K).eval()
    seen = []
    model.decoder.register_forward_hook(lambda layer, inputs, logits: seen.append(logits))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(1, 3, SIDE, SIDE))
    assert seen[0].dtype == torch.bfloat16 and logits.dtype == torch.float32
    exact = nn.functional.interpolate(seen[0].float(), size=(SIDE, SIDE), mode="bilinear", align_corners=True)
    assert torch.equal(logits, exact)


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls.append(str(function))
        return function(*args, **kwargs or {})


def test_an_average_of_resnet101_is_updated_in_one_call():
    model = build_model("resnet", K)
    averaged = AveragedNetwork(model, 0.9)
    averaged.update()
    with Counting() as counting:
        averaged.update()
    assert counting.calls == ["aten._foreach_lerp_.Scalar"]
    assert len(averaged.averaged) == len([t for t in model.state_dict().values() if t.is_floating_point()])


def test_an_average_holds_the_counters_of_its_network_and_torchs_own_average():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ours = AveragedNetwork(model, 0.75)
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.75)
    theirs = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    for _ in range(3):
        with torch.no_grad():
            model(torch.randn(2, 3, 8, 8))
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        ours.update()
        theirs.update_parameters(model)
    expected = theirs.module.state_dict() | {"1.num_batches_tracked": torch.tensor(3)}
    for name, value in ours.module.state_dict().items():
        assert torch.equal(value, expected[name]), name
