import pytest
import torch
from torch import nn

from robustfer.losses import AttentionConsistencyLoss, CompositeLoss, EACLoss, SCNLoss, Term


class Scaled(nn.Module):
    """A loss with a parameter of its own and an optional tensor."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, logits, importance=None):
        value = self.scale * logits.square().mean()
        return value if importance is None else value * importance.mean()


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 4, 7, 3, 3, generator=generator)
    return {
        "logits": torch.randn(4, 7, generator=generator),
        "target": torch.tensor([0, 3, 6, 1]),
        "attention": maps[0],
        "attention_flipped": maps[1],
    }


def eac_of_parts():
    return CompositeLoss(
        Term("ce", nn.CrossEntropyLoss(), inputs={"input": "logits"}),
        Term("attention", AttentionConsistencyLoss(), weight=5.0),
    )


def test_parts_make_the_whole_method(tensors):
    composite, whole = eac_of_parts(), EACLoss(consistency_weight=5.0)
    torch.testing.assert_close(composite(**tensors), whole(**tensors))
    terms = composite.terms(**tensors)
    assert list(terms) == ["ce", "attention"]
    torch.testing.assert_close(terms["attention"], whole.terms(**tensors)["attention_consistency"])


def test_says_what_it_accepts():
    assert eac_of_parts().accepts == {"logits", "target", "attention", "attention_flipped"}


def test_optional_tensors_are_filled_only_when_given(tensors):
    composite = CompositeLoss(Term("scaled", Scaled()))
    plain = composite(logits=tensors["logits"])
    halved = composite(logits=tensors["logits"], importance=torch.full((4,), 0.5))
    torch.testing.assert_close(halved, plain / 2)
    assert composite.accepts == {"logits", "importance"}


def test_weights_may_be_changed_in_the_loop(tensors):
    composite = eac_of_parts()
    before = composite.terms(**tensors)["attention"]
    composite.weights["attention"] = 10.0
    torch.testing.assert_close(composite.terms(**tensors)["attention"], 2 * before)


def test_parameters_and_state_of_the_losses_are_its_own():
    composite = CompositeLoss(Term("values", Scaled()), Term("scaled", Scaled()))
    assert [name for name, _ in composite.named_parameters()] == [
        "losses.0.scale",
        "losses.1.scale",
    ]
    assert set(composite.state_dict()) == {"losses.0.scale", "losses.1.scale"}


def test_whole_methods_compose_too(tensors):
    composite = CompositeLoss(Term("eac", EACLoss()), Term("scaled", Scaled(), weight=-0.5))
    expected = EACLoss()(**tensors) - 0.5 * Scaled()(tensors["logits"])
    torch.testing.assert_close(composite(**tensors), expected)


def test_a_tensor_nobody_takes_is_refused_with_the_near_name(tensors):
    tensors["attnetion"] = tensors.pop("attention")
    message = r"no term takes \['attnetion'\]; the terms take .*did you mean 'attention'\?"
    with pytest.raises(TypeError, match=message):
        eac_of_parts()(**tensors)


def test_what_is_no_tensor_is_refused_by_the_name_in_the_composition(tensors):
    # torch's cross entropy has the name 'input' for it.
    tensors["logits"] = tensors["logits"].tolist()
    with pytest.raises(TypeError, match=r"logits must be a torch.Tensor, got list"):
        eac_of_parts()(**tensors)


def test_the_tensors_without_a_default_are_required():
    composite = eac_of_parts()
    assert composite.requires == composite.accepts
    assert CompositeLoss(Term("scn", SCNLoss())).requires == {"logits", "target", "importance"}


def test_what_is_no_term_is_refused():
    with pytest.raises(TypeError, match=r'got CrossEntropyLoss; write Term\("name", loss\)'):
        CompositeLoss(nn.CrossEntropyLoss())


def test_a_loss_of_torch_without_names_of_its_tensors_says_how_to_give_them(tensors):
    composite = CompositeLoss(Term("ce", nn.CrossEntropyLoss()))
    with pytest.raises(TypeError, match=r"by inputs of its Term: \{'input': 'logits'\}"):
        composite(logits=tensors["logits"], target=tensors["target"])


def test_a_missing_tensor_names_the_term(tensors):
    del tensors["attention_flipped"]
    with pytest.raises(TypeError, match="term 'attention' needs the tensor 'attention_flipped'"):
        eac_of_parts()(**tensors)


def test_a_result_that_is_no_scalar_names_the_term(tensors):
    ce = nn.CrossEntropyLoss(reduction="none")
    composite = CompositeLoss(Term("ce", ce, inputs={"input": "logits"}))
    with pytest.raises(ValueError, match=r"term 'ce' must return a scalar, got shape \(4,\)"):
        composite(logits=tensors["logits"], target=tensors["target"])


class TakesAnything(nn.Module):
    def forward(self, logits, **others):
        return logits.sum()


class TakesByPosition(nn.Module):
    def forward(self, logits, /):
        return logits.sum()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CompositeLoss(), ValueError, "at least one Term"),
        (
            lambda: CompositeLoss(Term("a", Scaled()), Term("a", Scaled())),
            ValueError,
            r"names of the terms must differ, got \['a', 'a'\]",
        ),
        (
            lambda: CompositeLoss(Term("a", TakesAnything())),
            TypeError,
            r"term 'a': forward of TakesAnything takes \*\*others",
        ),
        (
            lambda: CompositeLoss(Term("a", TakesByPosition())),
            TypeError,
            "takes logits; a term must take each tensor by its name",
        ),
        (
            lambda: CompositeLoss(Term("a", Scaled(), inputs={"logit": "logits"})),
            ValueError,
            r"inputs of term 'a' name \['logit'\], but Scaled takes",
        ),
        (lambda: Term("a b", Scaled()), ValueError, "must be an identifier, got 'a b'"),
        (
            lambda: Term("a", Scaled(), weight=float("nan")),
            ValueError,
            "weight of term 'a' must lie in",
        ),
        (lambda: Term("a", torch.nn.functional.relu), TypeError, "must be an nn.Module"),
    ],
)
def test_refuses_at_construction(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_repr_shows_terms_and_weights():
    assert "ce=1, attention=5" in repr(eac_of_parts())


def test_warns_when_no_optimizer_holds_the_parameters_of_a_term():
    model, composite = nn.Linear(2, 3), CompositeLoss(Term("scaled", Scaled()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    composite(logits=model(torch.ones(1, 2))).backward()
    optimizer.step()
    with pytest.warns(UserWarning, match=r"no optimizer holds losses\.0\.scale"):
        optimizer.step()


class Remembering(nn.Module):
    """Distance from a slow average of each sample's logits: the least loss that has state."""

    def __init__(self, num_samples=9, num_classes=7):
        super().__init__()
        self.register_buffer("average", torch.zeros(num_samples, num_classes))

    def propose(self, logits, index):
        return (0.5 * self.average[index] + 0.5 * logits).detach()

    def forward(self, logits, moved):
        return (logits - moved).square().mean()

    @torch.no_grad()
    def update(self, index, moved, *, gather=True):
        self.average[index] = moved


def test_a_term_with_state_proposes_and_remembers_that_very_tensor(tensors):
    composite = CompositeLoss(
        Term("ce", nn.CrossEntropyLoss(), inputs={"input": "logits"}),
        Term("memory", Remembering(), weight=2.0),
    )
    assert composite.accepts == {"logits", "target", "index", "moved"}
    assert composite.proposes == {"moved"}
    given = {"logits": tensors["logits"], "target": tensors["target"]}
    given["index"] = torch.tensor([8, 0, 3, 4])

    proposed = composite.propose(**given)
    torch.testing.assert_close(proposed["moved"], tensors["logits"] / 2, rtol=0, atol=0)
    terms = composite.terms(**given, **proposed)
    torch.testing.assert_close(terms["memory"], 2 * (tensors["logits"] / 2).square().mean())
    memory = composite.losses[1].average
    assert not memory.any()  # proposing and the loss write nothing

    composite.update(given["index"], proposed)
    torch.testing.assert_close(memory[given["index"]], proposed["moved"], rtol=0, atol=0)
    assert not memory[[1, 2, 5, 6, 7]].any()


def test_two_terms_with_state_are_told_apart_by_their_inputs(tensors):
    with pytest.raises(ValueError, match=r"got \['moved', 'moved'\] from \['a', 'b'\]"):
        CompositeLoss(Term("a", Remembering()), Term("b", Remembering()))
    composite = CompositeLoss(
        Term("a", Remembering()),
        Term("b", Remembering(), inputs={"moved": "other", "logits": "student_logits"}),
    )
    index, logits = torch.arange(4), tensors["logits"]
    proposed = composite.propose(logits=logits, student_logits=-logits, index=index)
    composite.update(index, proposed)
    torch.testing.assert_close(composite.losses[0].average, -composite.losses[1].average)


def test_proposing_does_nothing_where_no_term_has_state(tensors):
    composite = eac_of_parts()
    assert composite.propose(**tensors) == {} == dict.fromkeys(composite.proposes)
    before = composite.state_dict()
    composite.update(torch.arange(4), {})
    assert composite.state_dict() == before


def test_what_was_not_proposed_is_neither_used_nor_remembered(tensors):
    composite = CompositeLoss(Term("memory", Remembering()))
    given = {"logits": tensors["logits"], "index": torch.arange(4)}
    with pytest.raises(TypeError, match="term 'memory' needs the tensor 'moved'"):
        composite(**given)
    with pytest.raises(TypeError, match="term 'memory' needs the tensor 'index'"):
        composite.propose(logits=tensors["logits"])
    with pytest.raises(ValueError, match=r"proposed must hold .*\['moved'\], got \[\]"):
        composite.update(given["index"], {})


class UpdatesAlone(nn.Module):
    def forward(self, logits):
        return logits.sum()

    def update(self, index, moved):
        raise AssertionError


class ForgetsItsProposal(Remembering):
    def forward(self, logits):
        return logits.sum()


def test_half_a_contract_is_refused():
    with pytest.raises(TypeError, match="term 'a': UpdatesAlone has no propose"):
        CompositeLoss(Term("a", UpdatesAlone()))
    message = r"updates 'moved', which its forward does not take; it takes \['logits'\]"
    with pytest.raises(TypeError, match=message):
        CompositeLoss(Term("a", ForgetsItsProposal()))


def test_a_misspelt_weight_is_refused(tensors):
    composite = eac_of_parts()
    composite.weights["attnetion"] = 0.0
    with pytest.raises(
        ValueError, match=r"weights must be .*\['ce', 'attention'\], got .*attnetion"
    ):
        composite(**tensors)


@pytest.mark.parametrize("returned", [0.0, (torch.zeros(()), {})])
def test_a_term_returns_a_tensor(returned):
    class Logged(nn.Module):
        def forward(self, logits):
            return returned

    criterion = CompositeLoss(Term("logged", Logged()))
    kind = type(returned).__name__
    with pytest.raises(ValueError, match=f"'logged' must return a scalar tensor, got {kind}"):
        criterion(logits=torch.zeros(2, 3))
