import pytest
import torch

from robustfer.models.lanet import ProjectionHead


def head(**options):
    torch.manual_seed(0)
    return ProjectionHead(5, **options)


def test_is_the_equation():
    model = head(dim=3).double()
    embeddings = torch.randn(4, 5, dtype=torch.float64)
    first, bias, second, other_bias = model.parameters()
    assert first.shape == (3, 5)
    hidden = (embeddings @ first.T + bias).clamp(min=0)
    projected = hidden @ second.T + other_bias
    expected = projected / projected.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(model(embeddings), expected)


def test_gradient_reaches_everything():
    model, embeddings = head(), torch.randn(4, 5, requires_grad=True)
    weights = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    (model(embeddings) * weights).sum().backward()
    for tensor in (embeddings, *model.parameters()):
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_of_half_inputs_have_length_one_in_single_precision(dtype):
    projected = head().to(dtype)(torch.randn(4, 5).to(dtype))
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(4))


def test_compiles_whole():
    model, embeddings = head(), torch.randn(4, 5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(embeddings), model(embeddings))


def test_refuses():
    with pytest.raises(ValueError, match=r"embeddings must have shape \(B, 5\), got \(4, 6\)"):
        head()(torch.zeros(4, 6))
    with pytest.raises(ValueError, match="embeddings must have a floating-point dtype"):
        head()(torch.zeros(4, 5, dtype=torch.int64))
    for name in ("in_dim", "dim"):
        for bad in (0, -1, 8.0, "8"):
            message = f"{name} must be a whole number from 1 on, got {bad!r}"
            with pytest.raises(ValueError, match=message):
                ProjectionHead(**{"in_dim": 5, name: bad})
