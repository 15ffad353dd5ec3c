"""One signature and one sum for every loss with several terms."""

import copy
import inspect
import pickle
from importlib import import_module
from typing import get_type_hints

import pytest
import torch
from torch import Tensor, nn

from robustfer import registry
from robustfer.authoring import sum_of_terms
from robustfer.losses import CompositeLoss, EACLoss, Term


class Elastic(nn.Module):
    """Three terms, with a tensor by keyword only and one that may be left out."""

    def terms(self, weight: Tensor, *, scale: Tensor, bias: Tensor | None = None) -> dict:
        terms = {"l1": scale * weight.abs().sum(), "l2": weight.square().sum()}
        return terms if bias is None else {**terms, "bias": bias.sum()}

    forward = sum_of_terms(terms)


def of_several_terms():
    """All installed losses with ``terms``, the plugins' too, and the composition of any."""
    sources = (registry.describe(name).source.split(":") for name in registry.available("losses"))
    made = (getattr(import_module(module), name) for module, name in sources)
    return [CompositeLoss, *(loss for loss in made if hasattr(loss, "terms"))]


def test_forward_is_the_sum_of_the_terms():
    weight, scale = torch.tensor([1.0, -3.0]), torch.tensor(2.0)
    assert Elastic()(weight, scale=scale) == 8 + 10
    assert Elastic()(weight, scale=scale, bias=torch.ones(3)) == 8 + 10 + 3


def test_forward_has_the_signature_of_terms():
    loss = Elastic()
    forward, terms = inspect.signature(loss.forward), inspect.signature(loss.terms)
    assert forward.parameters == terms.parameters
    assert forward.return_annotation is Tensor
    assert get_type_hints(Elastic.forward)["return"] is Tensor
    assert (Elastic.forward.__name__, Elastic.forward.__qualname__) == (
        "forward",
        "Elastic.forward",
    )


@pytest.mark.parametrize("loss", of_several_terms(), ids=lambda loss: loss.__name__)
def test_no_loss_writes_its_forward_again(loss):
    assert vars(loss)["forward"].__wrapped__ is vars(loss)["terms"]


def test_compositions_route_by_it():
    composite = CompositeLoss(Term("elastic", Elastic(), inputs={"bias": "offset"}))
    assert composite.accepts == {"weight", "scale", "offset"}
    assert composite(weight=torch.ones(2), scale=torch.tensor(3.0)) == 6 + 2
    with pytest.raises(TypeError, match="term 'elastic' needs the tensor 'scale'"):
        composite(weight=torch.ones(2))


def test_a_subclass_with_other_terms_has_their_sum():
    class Doubled(EACLoss):
        def terms(self, logits, target, attention, attention_flipped):
            terms = super().terms(logits, target, attention, attention_flipped)
            return {name: 2 * value for name, value in terms.items()}

    given = (torch.randn(3, 4), torch.tensor([0, 1, 2]), *torch.randn(2, 3, 4, 3, 3))
    torch.testing.assert_close(Doubled()(*given), 2 * EACLoss()(*given))


def test_losses_do_not_share_the_limit_on_recompilations():
    codes = [vars(loss)["forward"].__code__ for loss in of_several_terms()]
    assert len({id(code) for code in codes}) == len(codes) > 5


def test_it_compiles_copies_and_pickles():
    loss = EACLoss()
    given = (torch.randn(3, 4), torch.tensor([0, 1, 2]), *torch.randn(2, 3, 4, 3, 3))
    expected = loss(*given)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    for other in (compiled, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(other(*given), expected)
