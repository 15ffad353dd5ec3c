import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from robustfer.losses import SelfDistillationLoss, check_values
from robustfer.state import ModelEMA
from tests.state.processes import run_in_processes


class Network(nn.Module):
    """Parameters, one of them shared and one without gradient; buffers of three dtypes."""

    def __init__(self, seed=0, shared=True):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 4, bias=False)
        if shared:
            self.last.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.bool))
        self.register_buffer("volatile", torch.zeros(2), persistent=False)

    def forward(self, inputs):
        return self.scale * self.last(self.norm(self.first(inputs)))


def step(model, seed):
    """Change everything, as an optimizer, a forward and a loop would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point():
                tensor.copy_(tensor.float() + noise)
            else:
                tensor.copy_(10 * noise.abs())


def tensors(module):
    return {
        name: tensor.detach().clone()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


def decays(steps, decay, warmup):
    return [min(1 - 1 / (k + 1), decay) if warmup else decay for k in range(1, steps + 1)]


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("buffers", ["copy", "ema", "keep"])
def test_is_the_loop_over_tensors(buffers, warmup):
    model = Network().double()
    teacher = ModelEMA(model, decay=0.8, warmup=warmup, buffers=buffers)
    parameters = dict(model.named_parameters()).keys()
    expected = tensors(model)
    for number, decay in enumerate(decays(8, 0.8, warmup)):
        step(model, number)
        teacher.update(model)
        for name, new in tensors(model).items():
            floating = name in parameters or (buffers == "ema" and new.is_floating_point())
            if floating:
                expected[name] = decay * expected[name] + (1 - decay) * new
            elif buffers != "keep":
                expected[name] = new
        found = tensors(teacher.module)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, msg=name)


def test_a_module_of_two_names_and_one_that_is_not_there():
    """Each tensor is followed once, also where the model holds a part twice."""
    shared = nn.Linear(2, 2, bias=False)
    model = nn.Sequential(shared, nn.Sequential(shared, nn.BatchNorm1d(2)))
    model.register_module("absent", None)
    before, after = copy.deepcopy(model), copy.deepcopy(model)
    step(after, seed=1)
    ema = ModelEMA(model, decay=0.75, warmup=False, buffers="ema")
    ema.update(after)
    for kind in ("parameters", "buffers"):
        tensors = (list(getattr(module, kind)()) for module in (ema.module, before, after))
        for found, old, new in zip(*tensors, strict=True):
            if found.is_floating_point():
                new = torch.lerp(old, new, 0.25)
            torch.testing.assert_close(found, new.detach(), check_dtype=True)


def test_warming_up_it_is_the_mean_of_all_so_far():
    model = nn.Linear(3, 2).double()
    teacher, seen = ModelEMA(model), [model.weight.detach().clone()]
    for number in range(20):
        step(model, number)
        teacher.update(model)
        seen.append(model.weight.detach().clone())
        torch.testing.assert_close(teacher.module.weight.detach(), torch.stack(seen).mean(0))


@given(st.floats(0.0, 0.999), st.integers(1, 5), st.booleans())
@settings(deadline=None, max_examples=25)
def test_it_stays_between_what_it_saw(decay, steps, warmup):
    model = nn.Linear(1, 1, bias=False).double()
    teacher, seen = ModelEMA(model, decay=decay, warmup=warmup), [model.weight.item()]
    for number in range(steps):
        step(model, number)
        teacher.update(model)
        seen.append(model.weight.item())
        assert min(seen) - 1e-12 <= teacher.module.weight.item() <= max(seen) + 1e-12
    assert teacher.step == steps


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("buffers", ["copy", "ema"])
def test_equals_timms_where_that_can_do_the_same(buffers, warmup):
    from timm.utils import ModelEmaV3  # slow to import, in each process that imports this file

    model = Network(shared=False)  # timm's takes two steps at once with a weight of two names
    ours = ModelEMA(model, decay=0.99, warmup=warmup, buffers=buffers)
    theirs = ModelEmaV3(
        model, decay=0.99, use_warmup=warmup, warmup_gamma=1, warmup_power=1,
        exclude_buffers=buffers == "copy",
    )  # fmt: skip
    for number in range(120):
        step(model, number)
        ours.update(model)
        theirs.update(model, step=number + 2 if warmup else None)
        wanted = theirs.module.state_dict()
        for name, value in ours.module.state_dict().items():
            torch.testing.assert_close(value, wanted[name], msg=f"{name} at {number}")


def test_integer_buffers_are_counts_of_the_model():
    """Averaged and rounded they would be neither the model's nor their own."""
    model = Network()
    for buffers in ("copy", "ema"):
        teacher = ModelEMA(model, decay=0.9, buffers=buffers)
        model.norm.num_batches_tracked.fill_(2**53 + 1)
        model.seen.copy_(torch.tensor([True, False]))
        teacher.update(model)
        assert teacher.module.norm.num_batches_tracked == 2**53 + 1
        assert teacher.module.seen.tolist() == [True, False]


def test_kept_buffers_follow_the_teachers_own_forward():
    model = Network()
    teacher = ModelEMA(model, buffers="keep")
    model(torch.randn(8, 4))
    model(torch.randn(8, 4))
    teacher(torch.randn(8, 4))
    teacher.update(model)
    assert model.norm.num_batches_tracked == 2
    assert teacher.module.norm.num_batches_tracked == 1
    assert not torch.equal(teacher.module.norm.running_mean, model.norm.running_mean)


def test_a_skipped_step_is_neither_followed_nor_counted():
    model = Network()
    teacher = ModelEMA(model)
    before = tensors(teacher)
    step(model, 0)
    teacher.update(model, skipped=True)
    for name, value in tensors(teacher).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("buffers", ["copy", "ema", "keep"])
def test_a_resumed_run_goes_on_to_the_bit(buffers):
    model = Network()
    whole = ModelEMA(model, decay=0.9, buffers=buffers)
    for number in range(4):
        step(model, number)
        whole.update(model)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = ModelEMA(Network(seed=1), decay=0.9, buffers=buffers)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.step == 4
    for number in range(4, 8):
        step(model, number)
        whole.update(model)
        resumed.update(model)
    expected = whole.state_dict()
    assert "step" in expected
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected[name]), name


def saved_misfits():
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 4))
    yield ModelEMA(other).state_dict(), "module.1.weight is .* there and .* here"
    yield {**average().state_dict(), "step": torch.tensor(-1)}, "step must lie in .* got -1"
    state = average().state_dict()
    del state["module.0.bias"]
    yield state, "module.0.bias is not there"


def average(updates=7):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    teacher = ModelEMA(model)
    for number in range(updates):
        step(model, number)
        teacher.update(model)
    return teacher


@pytest.mark.parametrize(("state", "message"), list(saved_misfits()))
def test_a_state_that_does_not_fit_changes_nothing(state, message):
    teacher, same, loaded = average(3), average(3), average(4).state_dict()
    for one in (teacher, same):
        one.load_state_dict(loaded)
    before = tensors(teacher)
    with pytest.raises(ValueError, match=message):
        teacher.load_state_dict(state)
    assert all(torch.equal(value, before[name]) for name, value in tensors(teacher).items())
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    for one in (teacher, same):  # the step on the host, too
        one.update(model)
    after = tensors(same)
    assert all(torch.equal(value, after[name]) for name, value in tensors(teacher).items())


@pytest.mark.parametrize("name", ["first.weight", "norm.running_mean"])
def test_a_model_that_is_not_finite_is_refused_when_asked_for(name):
    model = Network()
    teacher = ModelEMA(model)
    before = tensors(teacher)
    with torch.no_grad():
        tensors_of = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        tensors_of[name].view(-1)[0] = float("nan")
    with check_values(), pytest.raises(ValueError, match=f"{name} must be finite, got 1 NaN"):
        teacher.update(model)
    assert all(torch.equal(value, before[name]) for name, value in tensors(teacher).items())


def test_switches_are_no_words():
    model = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="warmup must be True or False, got 'false'"):
        ModelEMA(model, warmup="false")
    with pytest.raises(TypeError, match=r"skipped must be True or False, got tensor\(False\)"):
        ModelEMA(model).update(model, skipped=torch.tensor(False))


def test_it_is_a_copy_without_gradient():
    model = Network()
    teacher = ModelEMA(model)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())
    own, new = tensors(teacher.module), tensors(model)
    assert all(torch.equal(own[name], new[name]) for name in new)
    inputs = torch.randn(3, 4, requires_grad=True)
    assert not teacher(inputs).requires_grad
    assert teacher.module.first.weight is teacher.module.last.weight
    assert teacher.module.first.weight is not model.first.weight


def test_modes_are_its_own():
    model = Network()
    teacher = ModelEMA(model)
    assert teacher.module.training
    teacher.eval()
    assert model.training
    inputs = torch.randn(3, 4)
    torch.testing.assert_close(teacher(inputs), copy.deepcopy(model).eval()(inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_averaged_in_single(dtype):
    """A thousandth of the way is lost in half precision; the copy would never move."""
    model = nn.Linear(4, 4).to(dtype)
    nn.init.ones_(model.weight)
    teacher = ModelEMA(model, decay=0.999, warmup=False)
    nn.init.constant_(model.weight, 2.0)
    for _ in range(10):
        teacher.update(model)
    expected = torch.full((4, 4), 2.0 - 0.999**10)
    torch.testing.assert_close(teacher.module.weight.detach(), expected)


def test_wrapped_and_compiled_models_are_followed_alike():
    model = Network()
    plain, compiled = ModelEMA(model), ModelEMA(model)
    step(model, 0)
    plain.update(model)
    compiled.update(torch.compile(model, backend="eager"))
    expected = tensors(plain)
    assert all(torch.equal(value, expected[name]) for name, value in tensors(compiled).items())


def test_it_can_be_pickled_and_copied():
    model = Network()
    teacher = ModelEMA(model)
    teacher.update(model)
    other = copy.deepcopy(teacher)
    step(model, 0)
    teacher.update(model)
    other.update(model)
    expected = tensors(teacher)
    assert all(torch.equal(value, expected[name]) for name, value in tensors(other).items())
    assert repr(teacher).startswith("ModelEMA(\n  decay=0.999, warmup=True, buffers='copy'")


def bad_models():
    yield nn.Linear(4, 5), r"the 2 parameters .* got 2; they differ in bias \[4\], bias \[5\], "
    yield nn.Linear(4, 4, bias=False), r"got 1; they differ in bias \[4\]"
    yield (
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)),
        r"the 0 buffers of the averaged model, got 3",
    )


@pytest.mark.parametrize(("other", "message"), list(bad_models()))
def test_refuses_another_model_and_changes_nothing(other, message):
    teacher = ModelEMA(nn.Linear(4, 4))
    before = tensors(teacher)
    with pytest.raises(ValueError, match=message):
        teacher.update(other)
    assert all(torch.equal(value, before[name]) for name, value in tensors(teacher).items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"decay": -0.1}, "decay must lie in"),
        ({"buffers": "none"}, "buffers must be 'copy', 'ema' or 'keep', got 'none'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        ModelEMA(nn.Linear(1, 1), **options)


# Several processes


def train(model, batches, wrapped):
    """A student distilled from its own average, without batch norm."""
    teacher = ModelEMA(model, decay=0.9)
    student = DistributedDataParallel(model) if wrapped else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for inputs in batches:
        loss = SelfDistillationLoss()(student(inputs), teacher(inputs.flip(1)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update(student)
    return teacher.state_dict()


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5)).double()


def batches():
    return torch.randn(6, 10, 4, generator=torch.Generator().manual_seed(1)).double()


def in_each_process(rank):
    plain, wrapped = small_network(), DistributedDataParallel(small_network())
    assert ModelEMA(wrapped).state_dict().keys() == ModelEMA(plain).state_dict().keys()
    return train(small_network(), batches()[:, 5 * rank : 5 * rank + 5], wrapped=True)


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    results = run_in_processes(in_each_process, tmp_path)
    expected = train(small_network(), batches(), wrapped=False)
    for result in results:
        assert result["step"] == 6
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value, rtol=1e-10, atol=1e-12, msg=name)
    assert all(torch.equal(results[0][name], results[1][name]) for name in expected)
