"""A loss as a function and as a module has the same defaults, in the core and in plugins."""

import inspect
import re
from importlib import import_module

import pytest

from robustfer import registry


def loaded(place):
    """What stands at "module:name" or "module.name"."""
    module, _, name = place.replace(":", ".").rpartition(".")
    return getattr(import_module(module), name)


def module_forms():
    """Losses by name whose docstring says of which function they are the module form."""
    for name, offer in registry.available("losses").items():
        loss = loaded(offer.component.factory)
        found = re.search(r"[Mm]odule form of :func:`~?([\w.]+)`", inspect.getdoc(loss) or "")
        if found:
            yield pytest.param(loss, found[1], id=name)


FORMS = list(module_forms())


def test_there_are_many():
    assert len(FORMS) > 8


@pytest.mark.parametrize(("loss", "place"), FORMS)
def test_the_defaults_are_those_of_the_function(loss, place):
    options, arguments = (inspect.signature(call).parameters for call in (loss, loaded(place)))
    shared = options.keys() & arguments.keys()
    assert shared or not options
    assert {n: options[n].default for n in shared} == {n: arguments[n].default for n in shared}
