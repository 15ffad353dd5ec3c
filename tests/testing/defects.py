"""Tables of classes with one defect each, beside the checks that must catch it."""

COMPILES = "test_compiles_as_one_graph"


class Defects(list):
    """Pairs of a defective class and the names of the checks that fail on it."""

    def caught_by(self, *checks):
        """Enter a class into the table: these checks fail on it, and no others."""

        def enter(defective):
            self.append((defective, set(checks)))
            return defective

        return enter

    def conformance_of(self, parent, **checked):
        """Return the checks of ``parent`` for another class, given by the name it has there."""
        (own,) = checked.values()
        if COMPILES not in dict(self).get(own, {COMPILES}):
            checked[COMPILES] = None  # it takes longer than all other checks
        return type(f"{own.__name__}Conformance", (parent,), checked)
