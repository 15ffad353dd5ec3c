"""By name: what there is, what it takes, and making it."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys

import pytest
import torch
from torch import Tensor, nn

import robustfer
from robustfer import Component, registry
from robustfer.hookspecs import KINDS
from robustfer.losses import AttentionConsistencyLoss, EACLoss
from robustfer.plugins import PluginError
from robustfer.registry import AmbiguousComponentError, UnknownComponentError
from tests.plugins_support import losses, write_plugin

pytest_plugins = ["tests.plugins_support.fixtures"]


@pytest.fixture(autouse=True)
def _core_alone(install):
    """Whatever plugins the environment of the tests has."""
    install()


@pytest.fixture
def offer(site, install):
    """Offer one loss named ``thing`` with this factory through a plugin ``acme``."""

    def offer(factory):
        robustfer.offered = factory
        source = """
            import robustfer

            @robustfer.hookimpl
            def robustfer_losses():
                return [component("thing", robustfer.offered)]
        """
        install(write_plugin(site, "acme", source))

    yield offer
    if hasattr(robustfer, "offered"):
        del robustfer.offered


class Margin(nn.Module):
    """A loss.

    Args:
        margin: how much
            it takes.
        reduction (str): mean or sum.

    Shape:
        logits, soft_target ``(B, C)`` and target ``(B)`` int64 -> scalar.
    """

    def __init__(self, margin, *, reduction: str = "mean", scale: float | None = None) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self,
        logits: Tensor,
        target,
        soft_target: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return logits.sum()


def make_margin(*, margin: float = 0.5) -> Margin:
    """Make a margin loss.

    Args:
        margin: of the function.
    """
    return Margin(margin)


def test_what_is_available():
    assert registry.available("losses").keys() >= {"attention_consistency", "eac"}
    assert registry.available("augmentations").keys() >= {"mirrored_pair", "single_view"}
    everything = registry.available()
    assert list(everything) == sorted(everything)
    by_kind = [registry.available(kind) for kind in KINDS]
    assert sum(map(len, by_kind)) == len(everything)
    assert {offer.kind for offer in everything.values()} == set(KINDS)


def test_an_unknown_kind():
    with pytest.raises(ValueError, match=r"one of \['losses', 'aug.*'\] or None, got 'loss'"):
        registry.available("loss")


#: Options that a component cannot do without.
NEEDED = {name: {"image_size": 48} for name in ("landmark_adaptive_wing", "lanet")}
NEEDED["forward_correction"] = {"transition": torch.eye(7)}
CORE = registry.plugins.Plugins([]).named("robustfer")[0].offers


@pytest.mark.parametrize("name", CORE)
def test_all_of_the_core_can_be_described_and_made(name):
    described = registry.describe(name.qualified_name)
    assert described.version == robustfer.__version__
    assert all(option.meaning for option in described.options)
    assert described.tensors
    for tensor in described.tensors:
        assert tensor.shape.startswith("(")
        assert not re.search(r"\(optional\)|\balso\b", tensor.shape)  # the signature says it
    assert described.result
    said = [option.meaning for option in described.options] + [described.result]
    assert not any(mark in text for text in said for mark in ("\\", "``", ":math:"))
    made = registry.create(name.qualified_name, **NEEDED.get(name.component.name, {}))
    assert isinstance(made, nn.Module)
    assert type(made).__name__ == described.source.split(":")[1]


def test_made_with_its_options():
    criterion = registry.create("eac", consistency_weight=2.5)
    assert type(criterion) is EACLoss
    assert criterion.consistency_weight == 2.5
    assert type(registry.create("robustfer:attention_consistency")) is AttentionConsistencyLoss


def test_values_are_refused_by_the_component_itself():
    with pytest.raises(ValueError, match="^consistency_weight must lie in"):
        registry.create("eac", consistency_weight=-1.0)


def test_a_description_of_the_core():
    described = registry.describe("eac")
    assert described.name == "robustfer:eac"
    assert described.kind == "losses"
    assert described.source == "robustfer.losses:EACLoss"
    assert described.signature == (
        "EACLoss(*, consistency_weight: float = 5.0, label_smoothing: float = 0.0, "
        "class_weights: Tensor | None = None)"
    )
    assert [(tensor.name, tensor.shape, tensor.required) for tensor in described.tensors] == [
        ("logits", "(B, C)", True),
        ("target", "(B) int64 or (B, C) probabilities", True),
        ("attention", "(B, C, H, W)", True),
        ("attention_flipped", "(B, C, H, W)", True),
    ]
    assert described.result == "scalar; float32 for half inputs"
    assert "ECCV 2022" in described.reference
    assert (described.plugin, described.distribution) == ("robustfer", "robustfer")
    with pytest.raises(dataclasses.FrozenInstanceError):
        described.name = "mine"


def test_a_description_of_a_class(offer):
    offer(Margin)
    described = registry.describe("thing")
    assert described.name == "acme:thing"
    assert described.source == "tests.test_registry:Margin"
    assert described.signature == (
        "Margin(margin, *, reduction: str = 'mean', scale: float | None = None)"
    )
    margin, reduction, scale = described.options
    assert (margin.required, margin.annotation, margin.meaning) == (True, "", "how much it takes.")
    assert (reduction.default, reduction.meaning) == ("mean", "mean or sum.")
    assert (scale.annotation, scale.default, scale.required) == ("float | None", None, False)
    assert scale.meaning == ""
    assert [(tensor.name, tensor.shape, tensor.required) for tensor in described.tensors] == [
        ("logits", "(B, C)", True),
        ("target", "(B) int64", True),
        ("soft_target", "(B, C)", False),
    ]
    assert (described.distribution, described.version) == ("robustfer-acme", "1.0")


def test_a_description_of_a_function(offer):
    offer(make_margin)
    described = registry.describe("thing")
    assert described.signature == "make_margin(*, margin: float = 0.5)"
    assert described.options[0].meaning == "of the function."
    assert [tensor.name for tensor in described.tensors] == ["logits", "target", "soft_target"]
    assert described.result == "scalar"


def make_module(*, margin: float = 0.5) -> nn.Module:
    """Make a loss of some class.

    Args:
        margin: of the function.

    Shape:
        logits, soft_target ``(B, C)``, target ``(B)`` int64 or ``(B, C)``, and progress ``()`` ->
        scalar.
    """
    return Margin(margin)


def make_undocumented(*, margin: float = 0.5) -> Undocumented:
    """Make it.

    Shape:
        target ``(B)``, logits ``(B, C)`` -> scalar; float32 for half inputs.
    """
    return Undocumented()


class Undocumented(nn.Module):
    def forward(self, logits: Tensor, target: Tensor | None = None) -> Tensor:
        return logits.sum()


def test_a_description_of_a_function_that_documents_what_it_makes(offer):
    offer(make_module)
    described = registry.describe("thing")
    assert [(tensor.name, tensor.shape) for tensor in described.tensors] == [
        ("logits", "(B, C)"),
        ("soft_target", "(B, C)"),
        ("target", "(B) int64 or (B, C)"),
        ("progress", "()"),
    ]
    assert described.result == "scalar"
    assert described.options[0].meaning == "of the function."


def test_a_description_of_a_class_that_its_function_documents(offer):
    offer(make_undocumented)
    described = registry.describe("thing")
    assert [(tensor.name, tensor.shape, tensor.required) for tensor in described.tensors] == [
        ("logits", "(B, C)", True),
        ("target", "(B)", False),
    ]
    assert described.result == "scalar; float32 for half inputs"


@pytest.mark.parametrize(
    "factory",
    [
        functools.partial(Margin, 0.5),
        lambda margin=1.0: Margin(margin),
        type("Bare", (), {"__call__": lambda self: 0, "__doc__": None}),
    ],
    ids=["partial", "lambda", "no forward"],
)
def test_a_description_of_what_says_little(offer, factory):
    offer(factory)
    described = registry.describe("thing")
    assert described.tensors == ()
    assert described.result == ""
    assert described.source
    assert callable(registry.create("thing"))


def test_a_return_type_for_type_checkers_alone(offer):
    def make() -> NotImported:  # noqa: F821
        return Margin(0.5)

    offer(make)
    assert registry.describe("thing").tensors == ()


def test_a_factory_without_a_signature(offer):
    offer(dict)  # as some that are written in C
    assert registry.describe("thing").signature == "dict(...)"
    with pytest.raises(PluginError, match="must make a callable as 'thing', got {'a': 1}"):
        registry.create("thing", a=1)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        (
            "eac",
            {"consistency_wieght": 1.0},
            "'eac' has no option 'consistency_wieght'; did you mean 'consistency_weight'? "
            "Its options: consistency_weight=5.0, label_smoothing=0.0",
        ),
        ("eac", {"zzz": 1.0}, "'eac' has no option 'zzz'. Its options: consistency_weight=5.0"),
        ("thing", {}, "'thing' needs 'margin'. Its options: margin, reduction='mean', scale=None"),
        ("acme:thing", {"name": 1}, "'acme:thing' has no option 'name'"),
    ],
)
def test_wrong_options_are_named(offer, name, options, problem):
    offer(Margin)
    with pytest.raises(TypeError, match=re.escape(problem)):
        registry.create(name, **options)


def test_a_factory_may_take_any_option(offer):
    offer(lambda **options: Margin(**options))
    assert registry.create("thing", margin=3.0).margin == 3.0


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("eeac", "no component is named 'eeac'; did you mean 'eac'?"),
        ("EAC", "no component is named 'EAC'; did you mean 'eac'?"),
        ("EACLoss", "did you mean 'eac'?"),
        ("AttentionConsistencyLoss", "did you mean 'attention_consistency'?"),
        ("zzz", "no component is named 'zzz'; `robustfer list` shows all"),
        ("robustfer:eeac", "no component of robustfer is named 'eeac'; did you mean 'eac'?"),
        ("acme:thign", "no component of acme is named 'thign'; did you mean 'thing'?"),
        ("acme:eac", "no component of acme is named 'eac'; `robustfer list` shows all"),
        ("acne:thing", "no plugin 'acne' is installed, so 'acne:thing' is unknown; did you mean"),
        ("", "no component is named ''; `robustfer list` shows all"),
    ],
)
def test_unknown_names_suggest_near_ones(offer, name, problem):
    offer(Margin)
    for ask in (registry.create, registry.describe):
        with pytest.raises(UnknownComponentError, match=re.escape(problem)) as raised:
            ask(name)
        assert raised.value.__cause__ is None


def test_a_name_is_text():
    with pytest.raises(TypeError, match="name must be text such as 'eac', got <class"):
        registry.create(EACLoss)


def test_a_name_that_two_offer_is_nobodys(site, install):
    install(write_plugin(site, "acme", losses("eac", "margin")))
    with pytest.raises(
        AmbiguousComponentError,
        match=r"'eac' is offered by \['acme', 'robustfer'\]; use one of them: "
        "'acme:eac', 'robustfer:eac'",
    ):
        registry.create("eac")
    assert type(registry.create("robustfer:eac")) is EACLoss
    assert {"acme:eac", "robustfer:eac", "margin"} <= registry.available().keys()
    assert "eac" not in registry.available()
    with pytest.raises(UnknownComponentError, match="did you mean 'acme:eac' or 'robustfer:eac'"):
        registry.create("eeac")


def test_a_loss_and_an_augmentation_of_one_name_are_in_conflict_too(site, install):
    install(write_plugin(site, "acme", losses("mirrored_pair")))
    with pytest.raises(AmbiguousComponentError, match="use one of them: 'acme:mirrored_pair'"):
        registry.describe("mirrored_pair")
    assert set(registry.available("augmentations")) == {"robustfer:mirrored_pair", "single_view"}


@pytest.mark.parametrize(
    ("factory", "problem", "cause"),
    [
        ("no_such_package:Loss", "cannot be imported: ModuleNotFoundError", ModuleNotFoundError),
        ("robustfer.losses:Los", "cannot be imported: AttributeError", AttributeError),
        ("robustfer:__version__", "which is not a class or function but '0", None),
    ],
)
def test_a_factory_that_is_not_there(offer, factory, problem, cause):
    offer(factory)
    assert "thing" in registry.available()
    for ask in (registry.create, registry.describe):
        with pytest.raises(PluginError, match=f"'acme' .* offers 'thing' as .*{problem}") as raised:
            ask("thing")
        assert type(raised.value.__cause__ or None) is (cause or type(None))


class Panic(BaseException):
    """As pyo3's PanicException, of extensions written in Rust."""


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import sys; sys.exit(0)", "cannot be imported: SystemExit: 0"),
        ("from tests.test_registry import Panic; raise Panic('rust')", "imported: Panic: rust"),
        ("def __getattr__(name): raise GeneratorExit", "cannot be imported: GeneratorExit"),
    ],
)
def test_a_module_of_a_factory_that_would_end_the_program(offer, site, source, problem):
    (site / "acme_that_ends.py").write_text(source)
    offer("acme_that_ends:Loss")
    for ask in (registry.create, registry.describe):
        sys.modules.pop("acme_that_ends", None)
        with pytest.raises(PluginError, match=f"'acme' .* offers 'thing' as .*{problem}"):
            ask("thing")


def test_an_interrupt_while_a_factory_is_imported_is_the_users(offer, site):
    (site / "acme_interrupted.py").write_text("raise KeyboardInterrupt")
    offer("acme_interrupted:Loss")
    for ask in (registry.create, registry.describe):
        with pytest.raises(KeyboardInterrupt):
            ask("thing")


@pytest.mark.parametrize("error", [SystemExit(0), Panic("rust")], ids=["exit", "panic"])
def test_a_factory_that_would_end_the_program(offer, error):
    def factory():
        raise error

    offer(factory)
    with pytest.raises(
        PluginError, match=f"'acme' .* fails to make 'thing': {type(error).__name__}"
    ):
        registry.create("thing")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_other_errors_of_a_factory_are_its_callers(offer, error):
    def factory():
        raise error("mine")

    offer(factory)
    with pytest.raises(error, match="mine"):
        registry.create("thing")


class Silent:
    def __repr__(self):
        raise OSError("no repr")


def test_a_default_without_a_repr(offer):
    def make(*, quiet=Silent()) -> Margin:  # noqa: B008
        return Margin(0.5)

    offer(make)
    described = registry.describe("thing")
    shown = "<Silent whose repr cannot be made: OSError>"
    assert described.signature.endswith(f"make(*, quiet={shown})")
    assert str(described.options[0]) == f"quiet={shown}"
    with pytest.raises(TypeError, match=f"no option 'loud'. Its options: quiet={shown}"):
        registry.create("thing", loud=True)


def test_what_is_made_without_a_repr(offer):
    offer(Silent)
    with pytest.raises(PluginError, match="must make a callable as 'thing', got <Silent whose"):
        registry.create("thing")


def test_a_signature_that_raises(offer):
    class Unsigned(nn.Module):
        @property
        def __signature__(self):
            raise OSError("no signature")

    offer(Unsigned())
    with pytest.raises(PluginError, match="'acme' .* which cannot be described: OSError: no sign"):
        registry.describe("thing")
    with pytest.raises(PluginError, match="has no signature that can be read: OSError: no sign"):
        registry.create("thing")


def test_a_return_type_that_is_no_type(offer):
    def make():
        return Margin(0.5)

    make.__annotations__["return"] = "1 / 0"
    offer(make)
    assert registry.describe("thing").tensors == ()


class Remembering(Margin):
    """A loss with state."""

    def forward(self, logits: Tensor, average: Tensor) -> Tensor:
        return logits.sum()

    def propose(self, logits: Tensor, index: Tensor) -> Tensor:
        """Return what will be remembered of ``logits``.

        Nothing is written.
        """
        return logits

    def update(self, index: Tensor, average: Tensor, *, gather: bool = True) -> None:
        """Keep it."""


def test_a_description_of_a_loss_with_state(offer):
    offer(Remembering)
    propose, update = registry.describe("thing").state
    assert propose.signature == "propose(logits, index)"
    assert propose.when == "before forward, which takes the result as average"
    assert propose.meaning == "Return what will be remembered of logits"
    assert update.signature == "update(index, average, *, gather=True)"
    assert update.when == "after the optimizer's step"
    assert update.meaning == "Keep it"
    offer(Margin)
    assert registry.describe("thing").state == ()


def valid(**changes):
    return {"name": "a", "factory": "a.b:C", "summary": "s", "reference": "r"} | changes


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"name": 3}, TypeError, "name of a Component must be text, got 3"),
        ({"summary": None}, TypeError, "summary of a Component must be text, got None"),
        ({"name": "Eac"}, ValueError, "name of a Component must be in snake_case, got 'Eac'"),
        ({"name": "a:b"}, ValueError, "snake_case, got 'a:b'"),
        ({"name": ""}, ValueError, "snake_case, got ''"),
        ({"summary": " "}, ValueError, "summary of component 'a' must not be empty"),
        ({"reference": ""}, ValueError, "reference of component 'a' must not be empty"),
        ({"summary": "a\nb"}, ValueError, r"summary of component 'a' must be one line"),
        ({"summary": "a\n"}, ValueError, r"summary of component 'a' must be one line"),
        ({"summary": "red \x1b[31m"}, ValueError, "one line without control characters"),
        ({"reference": "half \udcff"}, ValueError, "one line without control characters"),
        ({"name": "a" * 101}, ValueError, "name of a Component .* at most 100 .* got 101: 'aaa"),
        ({"summary": "a" * 10**6}, ValueError, r"at most 200 .* got 1000000: 'a{59}\.\.\. "),
        ({"reference": "a" * 501}, ValueError, "reference .* at most 500 characters, got 501"),
        ({"name": Silent()}, TypeError, "name of a Component must be text, got <Silent whose"),
        ({"factory": Silent()}, TypeError, "factory of component 'a' .* got <Silent whose"),
        ({"factory": "a.b"}, ValueError, "or the text 'package.module:attribute', got 'a.b'"),
        ({"factory": "a.b:1"}, ValueError, "or the text 'package.module:attribute', got 'a.b:1'"),
        ({"factory": None}, TypeError, "factory of component 'a' must be a callable .*, got None"),
    ],
)
def test_a_component_is_checked_when_it_is_made(changes, error, problem):
    with pytest.raises(error, match=problem):
        Component(**valid(**changes))


def test_a_component_is_frozen_and_keyword_only():
    component = Component(**valid(factory=Margin))
    assert component == Component(**valid(factory=Margin))
    with pytest.raises(dataclasses.FrozenInstanceError):
        component.name = "b"
    with pytest.raises(TypeError, match="positional"):
        Component("a", Margin, "s", "r")
