"""What training knows of each sample, one prediction after the other in Python's own numbers."""

import itertools
import math


class SlowDynamics:
    def __init__(self, given, num_classes, early):
        self.given, self.num_classes, self.early = given, num_classes, early
        self.seen = [[] for _ in given]

    def update(self, index, logits):
        for row, scores in zip(index, logits, strict=True):
            if all(math.isfinite(score) for score in scores):
                self.seen[row].append(scores)

    def visits(self):
        return [len(seen) for seen in self.seen]

    def probabilities(self, window):
        return [
            self._mean(seen if window == "all" else seen[slice(*self.early)]) for seen in self.seen
        ]

    def margins(self):
        return [
            sum(self._margin(scores, label) for scores in seen) / len(seen) if seen else math.nan
            for seen, label in zip(self.seen, self.given, strict=True)
        ]

    def forgotten(self):
        counts = []
        for seen, label in zip(self.seen, self.given, strict=True):
            right = [self._class(scores) == label for scores in seen]
            counts.append(sum(one and not other for one, other in itertools.pairwise(right)))
        return counts

    def last_prediction(self):
        return [self._class(seen[-1]) if seen else 0 for seen in self.seen]

    def _mean(self, seen):
        if not seen:
            return [1 / self.num_classes] * self.num_classes
        rows = [self._softmax(scores) for scores in seen]
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    def _softmax(self, scores):
        powers = [math.exp(score - max(scores)) for score in scores]
        return [power / sum(powers) for power in powers]

    def _margin(self, scores, label):
        return scores[label] - max(score for k, score in enumerate(scores) if k != label)

    def _class(self, scores):
        return scores.index(max(scores))
