"""Label distributions from neighbours as the equations have them: loops over pairs, slow."""

import torch

EPSILON = 1e-8


def neighbors(embeddings, index, num_neighbors):
    """Rows of the nearest other samples of each row, by sorting."""
    chosen = []
    for i, one in enumerate(embeddings):
        found = []
        for j, other in enumerate(embeddings):
            if index[j] != index[i]:
                cosine = (one * other).sum() / (one.norm() * other.norm())
                found.append((-cosine.item(), j))
        chosen.append([j for _, j in sorted(found)[:num_neighbors]])
    return chosen


def score(scorer, one, other):
    """The MLP on the joined halves of one ordered pair, first of a softmax of two."""
    half = len(one) // 2
    first = scorer.project.weight @ one + scorer.project.bias
    second = scorer.project.weight @ other + scorer.project.bias
    hidden = torch.cat([first[:half], second[half:]])
    for layer in (scorer.pair, scorer.hidden):
        hidden = (layer.weight @ hidden + layer.bias).clamp(min=0)
    return (scorer.score.weight @ hidden + scorer.score.bias).softmax(0)[0]


def space(features, scorer, probabilities, index, num_neighbors):
    batch, rows = len(features), []
    for i, chosen in enumerate(neighbors(features.detach(), index.tolist(), num_neighbors)):
        scores = {j: score(scorer, features[i], features[j]) for j in chosen}
        total = sum(scores.values()) + EPSILON
        weights = [(scores.get(j, 0.0) + EPSILON / batch) / total for j in range(batch)]
        rows.append(sum(w * p for w, p in zip(weights, probabilities, strict=True)))
    return torch.stack(rows)


def estimate(estimator, embeddings, landmark_embeddings, logits, index):
    probabilities, most = logits.softmax(1), estimator.num_neighbors
    one = space(embeddings, estimator.expression_scorer, probabilities, index, most)
    other = space(landmark_embeddings, estimator.landmark_scorer, probabilities, index, most)
    return (one + other) / 2
