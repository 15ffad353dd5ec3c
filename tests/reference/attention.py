"""The equations of class attention and its consistency as loops, slow and plain."""

import torch


def class_attention(features, weight):
    batch, depth, height, width = features.shape
    maps = torch.zeros(batch, len(weight), height, width, dtype=features.dtype)
    for n in range(batch):
        for c in range(len(weight)):
            for h in range(height):
                for w in range(width):
                    maps[n, c, h, w] = sum(
                        weight[c, d] * features[n, d, h, w] for d in range(depth)
                    )
    return maps


def attention_consistency(attention, attention_flipped):
    batch, classes, height, width = attention.shape
    per_sample = []
    for n in range(batch):
        total = 0.0
        for c in range(classes):
            for h in range(height):
                for w in range(width):
                    mirrored = attention_flipped[n, c, h, width - 1 - w]
                    total = total + (attention[n, c, h, w] - mirrored) ** 2
        per_sample.append(total / (classes * height * width))
    return torch.stack(per_sample)


def cross_entropy(logits, target):
    """Mean of -sum_c y_c log softmax(z)_c, for class indices or probabilities."""
    total = 0.0
    for row, label in zip(logits, target, strict=True):
        log_probability = row - row.exp().sum().log()
        if label.ndim:
            total = total - (label * log_probability).sum()
        else:
            total = total - log_probability[label]
    return total / len(logits)
