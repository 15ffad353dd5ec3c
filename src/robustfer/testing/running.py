"""Run the checks of a conformance class without a test runner."""

from __future__ import annotations


def failing_checks(conformance: type) -> dict[str, Exception]:
    """Run every check of a conformance class, and return those that fail, by name.

    Args:
        conformance: a subclass of :class:`~robustfer.testing.LossConformance` or of another kit.

    Returns:
        Name of the check -> its error. Empty if all checks pass.

    >>> import torch
    >>> from torch import nn
    >>> from robustfer.testing import LossConformance
    >>> class CrossEntropy(LossConformance):
    ...     def make_loss(self):
    ...         return nn.CrossEntropyLoss()
    ...
    ...     def make_inputs(self, *, batch, classes, dtype, generator):
    ...         logits = torch.randn(batch, classes, dtype=dtype, generator=generator)
    ...         target = torch.randint(classes, (batch,), generator=generator)
    ...         return {"input": logits, "target": target}
    >>> for name, error in failing_checks(CrossEntropy).items():
    ...     print(name)
    test_documents_shape_and_reference
    test_half_precision_is_summed_in_single
    test_options_are_keyword_only
    """
    failures: dict[str, Exception] = {}
    for name in sorted(dir(conformance)):
        # A check that a subclass switches off is None.
        if name.startswith("test_") and callable(getattr(conformance, name)):
            try:
                getattr(conformance(), name)()
            except Exception as error:
                failures[name] = error
    return failures
