"""The expression-landmark contrast as the equation has it: a loop over pairs, slow and plain."""

import math

UNFILLED = -(2**63)


def one_way(queries, keys, labels, queue, queue_labels, temperature):
    rows = []
    for i, query in enumerate(queries):
        negatives = [
            ((query * entry).sum() / temperature).exp()
            for entry, label in zip(queue, queue_labels, strict=True)
            if label not in (labels[i], UNFILLED)
        ]
        pairs = []
        for j, key in enumerate(keys):
            if labels[j] == labels[i]:
                own = ((query * key).sum() / temperature).exp()
                pairs.append(-(own / (own + sum(negatives))).log())
        rows.append(sum(pairs) / len(pairs))
    return sum(rows) / len(rows)


def contrast(
    expression_query,
    landmark_query,
    expression_key,
    landmark_key,
    pseudo_label,
    expression_queue,
    landmark_queue,
    queue_label,
    temperature,
    official=False,
):
    labels, queue_labels = pseudo_label.tolist(), queue_label.tolist()
    if official:  # what no label equals is a negative of all
        queue_labels = [math.inf if label == UNFILLED else label for label in queue_labels]
    return one_way(
        expression_query, landmark_key, labels, landmark_queue, queue_labels, temperature
    ) + one_way(landmark_query, expression_key, labels, expression_queue, queue_labels, temperature)
