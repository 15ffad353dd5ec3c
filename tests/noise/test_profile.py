import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp

from robustfer.data import DemoFaces, FERPlus, LabeledFaces
from robustfer.noise import NoiseProfile, with_class_noise, with_symmetric_noise
from robustfer.noise.profile import margin_log_odds

ROOT = os.environ.get("ROBUSTFER_FERPLUS")


class Faces(LabeledFaces):
    """Labels without images."""

    def load_image(self, row):
        return torch.zeros(3, 1, 1, dtype=torch.uint8)


def faces(given, true=None, num_classes=3, votes=None, classes=None):
    return Faces(
        classes=classes or [f"class{k}" for k in range(num_classes)],
        ids=[f"face{row}" for row in range(len(given))],
        targets=given,
        true_targets=true,
        votes=votes,
    )


def drawn(count, num_classes=3, seed=0):
    generator = np.random.default_rng(seed)
    true = generator.integers(num_classes, size=count)
    logits = generator.normal(size=(count, num_classes)) + 2 * np.eye(num_classes)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return true, probabilities, generator


def test_counts_and_rate_are_those_of_the_labels():
    given, true = [0, 1, 1, 2, 0], [0, 0, 1, 2, 2]
    profile = NoiseProfile.of(faces(given, true))
    assert profile.counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert (profile.samples, profile.rate) == (5, 0.4)
    assert profile.matrix[0].tolist() == [0.5, 0.5, 0.0]
    assert profile.by_margin is None
    assert profile.attraction is None
    assert margin_log_odds(profile).tolist() == [0.0] * 10
    assert "2 of 5 labels differ" in profile.text()


def test_only_verified_faces_count():
    data = faces([0, 1, 1, 2, 0])
    profile = NoiseProfile.of(data, true=[0, -1, -1, 1, 0])
    assert profile.counts.tolist() == [[2, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_the_majority_of_votes_is_the_truth_where_nothing_better_is_known():
    votes = [[6, 4, 0], [5, 5, 0], [0, 1, 2], [0, 0, 0]]
    profile = NoiseProfile.of(faces([1, 0, 2, 2], votes=votes))
    assert profile.counts.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
    better = NoiseProfile.of(faces([1, 0, 2, 2], [1, 0, 2, 2], votes=votes))
    assert better.rate == 0.0


def slow_by_margin(probabilities, true, given):
    """Each face shares its margin's rate with the faces of its class that have the same margin."""
    wrong, faces_in = [0.0] * 10, [0] * 10
    for k in sorted(set(true.tolist())):
        rows = [row for row in range(len(true)) if true[row] == k]
        margin = {
            row: probabilities[row][k] - max(p for c, p in enumerate(probabilities[row]) if c != k)
            for row in rows
        }
        rows.sort(key=margin.get)
        for place, row in enumerate(rows):
            tied = [other for other in rows if margin[other] == margin[row]]
            tenth = place * 10 // len(rows)
            wrong[tenth] += sum(given[other] != k for other in tied) / len(tied)
            faces_in[tenth] += 1
    return [w / max(n, 1) for w, n in zip(wrong, faces_in, strict=True)]


@pytest.mark.parametrize("ties", [False, True])
def test_rates_by_margin_are_those_of_a_slow_loop(ties):
    true, probabilities, generator = drawn(211)
    if ties:
        votes = np.array([generator.multinomial(4, p) for p in probabilities])
        probabilities = votes / 4
    given = np.where(generator.random(211) < 0.4, generator.integers(3, size=211), true)
    data = faces(given, true)
    profile = NoiseProfile.of(data, probabilities=probabilities)
    slow = slow_by_margin(probabilities, true, given)
    np.testing.assert_allclose(profile.by_margin, slow, atol=1e-12)


def test_votes_are_what_faces_look_like_by_default():
    true, probabilities, generator = drawn(150)
    votes = np.array([generator.multinomial(10, p) for p in probabilities])
    given = np.where(generator.random(150) < 0.3, generator.integers(3, size=150), true)
    own = NoiseProfile.of(faces(given, true, votes=votes))
    told = NoiseProfile.of(faces(given, true), probabilities=votes / 10)
    assert own.by_margin == pytest.approx(told.by_margin)
    assert own.attraction == pytest.approx(told.attraction)


def likeness(probabilities, true):
    smooth = probabilities + 0.05
    mean = np.stack([smooth[true == k].mean(0) for k in range(smooth.shape[1])])
    return np.log(smooth / mean[true])


def test_attraction_is_the_likeliest_power():
    true, probabilities, generator = drawn(3000, num_classes=4)
    other = probabilities * (1 - np.eye(4)[true])
    chosen = np.array([generator.choice(4, p=row / row.sum()) for row in other])
    given = np.where(generator.random(3000) < 0.4, chosen, true)
    profile = NoiseProfile.of(faces(given, true, 4), probabilities=probabilities)

    rows = given != true
    k, label, x = true[rows], given[rows], likeness(probabilities, true)[rows]

    def cost(values):
        # A level for each pair of classes, and the power.
        logits = values[:16].reshape(4, 4)[k] + values[16] * x
        logits[np.arange(len(k)), k] = -np.inf
        return (logsumexp(logits, axis=1) - logits[np.arange(len(k)), label]).mean()

    best = minimize(cost, np.zeros(17), method="BFGS", options={"gtol": 1e-7}).x
    assert profile.attraction == pytest.approx(best[16], abs=1e-4)
    assert profile.attraction > 0.5


def test_a_single_wrong_class_attracts_no_face():
    true, probabilities, _ = drawn(60, num_classes=2)
    given = 1 - true
    assert NoiseProfile.of(faces(given, true, 2), probabilities=probabilities).attraction < 1e-6
    right = NoiseProfile.of(faces(true, true, 2), probabilities=probabilities)
    assert (right.attraction, right.rate, set(right.by_margin)) == (0.0, 0.0, {0.0})
    assert margin_log_odds(right).tolist() == [0.0] * 10


def test_noise_that_knows_no_face_attracts_none():
    true, probabilities, _ = drawn(4000)
    noisy = with_symmetric_noise(faces(true), rate=0.4, seed=0)
    profile = NoiseProfile.of(noisy, probabilities=probabilities)
    assert profile.attraction < 0.15
    assert max(profile.by_margin) - min(profile.by_margin) < 0.12


def test_log_odds_are_the_likeliest_of_a_logistic_model():
    # A regression with a constant for each class and one for each tenth, by scipy.
    size, rates = np.array([300.0, 500.0, 40.0]), np.array([0.2, 0.5, 0.1])
    by_margin = np.linspace(0.65, 0.12, 10)
    by_margin *= (size @ rates / size.sum()) / by_margin.mean()
    wrong = np.round(size * rates).astype(int)
    counts = torch.diag(torch.tensor(size.astype(int) - wrong))
    for k in range(3):
        counts[k, (k + 1) % 3] = wrong[k]
    profile = NoiseProfile(
        classes=("a", "b", "c"), counts=counts, by_margin=tuple(by_margin), attraction=0.0
    )

    def cost(values):
        alpha, beta = values[:3, None], np.append(values[3:], 0.0)
        logits = alpha + beta
        each = size[:, None] / 10
        whole = each.sum()
        return (each * np.logaddexp(0, logits)).sum() - (
            (wrong * alpha[:, 0]).sum() + (beta * by_margin * whole).sum()
        )

    best = minimize(cost, np.zeros(12), method="BFGS", options={"gtol": 1e-8}).x
    beta = np.append(best[3:], 0.0)
    np.testing.assert_allclose(margin_log_odds(profile), beta - beta.mean(), atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_profile_is_read_as_it_was_saved(tmp_path_factory, data):
    num_classes = data.draw(st.integers(2, 5))
    cells = st.lists(st.integers(0, 50), min_size=num_classes**2, max_size=num_classes**2)
    counts = torch.tensor(data.draw(cells.filter(any))).view(num_classes, num_classes)
    shares = st.lists(st.floats(0, 1), min_size=10, max_size=10).map(tuple)
    by_margin = data.draw(st.none() | shares)
    profile = NoiseProfile(
        classes=tuple(f"Klasse {k} é" for k in range(num_classes)),
        counts=counts,
        by_margin=by_margin,
        attraction=None if by_margin is None else data.draw(st.floats(0, 4)),
        source=data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)),
    )
    path = tmp_path_factory.mktemp("profile") / "noise.json"
    profile.save(path)
    found = NoiseProfile.load(path)
    assert torch.equal(found.counts, profile.counts)
    for name in ("classes", "by_margin", "attraction", "source"):
        assert getattr(found, name) == getattr(profile, name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"robustfer": "something"}, "'robustfer'"),
        ({"counts": [[1, 2]]}, "counts"),
        ({"counts": [[1, -2], [0, 0]]}, "counts must be 0 or more"),
        ({"counts": [[0, 0], [0, 0]]}, "not all 0"),
        ({"counts": [[0.5, 0], [0, 1]]}, "int64"),
        ({"classes": ["a", "a"]}, "'a'"),
        ({"by_margin": [0.1]}, "10 shares, got 1"),
        ({"by_margin": [2.0] * 10}, "by_margin"),
        ({"by_margin": None}, "both"),
        ({"attraction": "much"}, "attraction"),
        ({"classes": ...}, "'classes'"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path, change, said):
    values = {
        "robustfer": "noise profile", "source": "", "classes": ["a", "b"],
        "counts": [[3, 1], [1, 3]], "by_margin": [0.1] * 10, "attraction": 1.0, **change,
    }  # fmt: skip
    path = tmp_path / "noise.json"
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    with pytest.raises(ValueError, match="not a noise profile") as error:
        NoiseProfile.load(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "noise.json"
    with pytest.raises(FileNotFoundError, match=r"noise\.json does not exist.*fer2013"):
        NoiseProfile.load(path)
    for content in (b"\xff\xfe", b"{", b"[]"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"noise\.json is not a noise profile"):
            NoiseProfile.load(path)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"classes": "ab"}, TypeError, "classes"),
        ({"classes": ("a", "a")}, ValueError, "classes"),
        ({"counts": torch.ones(3, 3).long()}, ValueError, r"counts must have shape \(2, 2\)"),
        ({"counts": [[3, 1], [1, 3]]}, TypeError, "counts must be a torch.Tensor, got list"),
        ({"counts": torch.ones(2, 2)}, ValueError, "counts must be int64"),
        ({"counts": -torch.eye(2).long()}, ValueError, "counts must be 0 or more"),
        ({"counts": torch.zeros(2, 2).long()}, ValueError, "not all 0"),
        ({"by_margin": (0.1,) * 10}, ValueError, "by_margin and attraction must both"),
        ({"attraction": 1.0}, ValueError, "by_margin and attraction must both"),
        ({"by_margin": (0.1,) * 3, "attraction": 1.0}, ValueError, "must have 10 shares, got 3"),
        ({"by_margin": (1.1,) * 10, "attraction": 1.0}, ValueError, "by_margin must lie in"),
        ({"by_margin": (0.1,) * 10, "attraction": 5.0}, ValueError, "attraction must lie in"),
    ],
)
def test_what_is_no_profile_is_refused(change, error, said):
    fit = {"classes": ("a", "b"), "counts": torch.tensor([[3, 1], [1, 3]])}
    NoiseProfile(**fit)
    with pytest.raises(error, match=said):
        NoiseProfile(**{**fit, **change})


def test_it_can_be_measured_in_inference_mode():
    true, probabilities, generator = drawn(200)
    data = faces(np.where(generator.random(200) < 0.4, 0, true), true)
    with torch.inference_mode():
        inside = NoiseProfile.of(data, probabilities=probabilities)
    outside = NoiseProfile.of(data, probabilities=probabilities)
    assert inside.attraction == pytest.approx(outside.attraction)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="neither true_targets nor votes; pass the true classes"):
        NoiseProfile.of(faces([0, 1]))
    with pytest.raises(ValueError, match="dataset must have one class per sample"):
        NoiseProfile.of(faces([[0.5, 0.5, 0.0]]), true=[0])
    with pytest.raises(ValueError, match="at least one face"):
        NoiseProfile.of(faces([0, 1]), true=[-1, -1])
    with pytest.raises(ValueError, match="class indices from 0 to 2, got 3"):
        NoiseProfile.of(faces([0, 1]), true=[-1, 3])
    with pytest.raises(ValueError, match="probabilities"):
        NoiseProfile.of(faces([0, 1], [0, 1]), probabilities=[[0.5, 0.5]] * 2)
    with pytest.raises(TypeError, match="robustfer's data sets"):
        NoiseProfile.of([1, 2])


def test_fer2013_is_sums_over_thousands_of_faces():
    profile = NoiseProfile.load("fer2013")
    assert profile.classes == DemoFaces(num_samples=1).classes
    assert profile.samples == 13_999
    assert profile.rate == pytest.approx(0.283, abs=0.001)
    assert profile.by_margin[0] > 3 * profile.by_margin[-1]
    size = Path(with_class_noise.__code__.co_filename).with_name("fer2013.json").stat().st_size
    assert size < 2000  # no room for a face


@pytest.mark.skipif(ROOT is None, reason="needs the faces of FERPlus")
def test_fer2013_is_measured_on_the_faces():
    own = Path(ROOT, "fer2013_emotion.csv")
    measured = NoiseProfile.of(
        FERPlus(ROOT, "train", labels="fer2013", fer2013_labels=own, duplicates="drop")
    )
    shipped = NoiseProfile.load("fer2013")
    assert torch.equal(measured.counts, shipped.counts)
    assert measured.by_margin == pytest.approx(shipped.by_margin, abs=1e-9)
    assert measured.attraction == pytest.approx(shipped.attraction, abs=1e-6)
