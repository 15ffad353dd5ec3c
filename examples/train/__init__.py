"""Train by any method with one program: ``python -m examples.train METHOD --data ...``.

==================  ============================================================================
``__main__.py``     the command line
``options.py``      every option, from the command line or a YAML file
``data.py``         data sets, label noise, images decoded once, the order of an epoch
``views.py``        random crop, mirror image and erased box for a batch
``weights.py``      the network and its start weights, with a report of what was loaded
``optimizer.py``    optimizer and schedule
``landmarks.py``    landmarks of a data set
``correction.py``   predictions corrected by a review of the training labels
``transition.py``   verified labels, and how often labels are wrong
``memory.py``       a teacher's mean prediction for each face, and what it says about its label
``terms.py``        losses as the command line writes them
``devices.py``      Lightning Fabric for devices, processes and precision
``processes.py``    averages over processes, and a batch processed in parts
``engine.py``       the training loop
``evaluation.py``   a classifier's predictions for a data set
``run_folder.py``   the folder of a run: config.yaml, resume.pt, run.json, metrics.csv
``predictions.py``  the predictions of a finished run for its evaluation set
``earlier.py``      what the runs before a run cost
``recording.py``    the predictions for each training face, for ``robustfer audit``
``seeds.py``        one training for each seed
``trained.py``      a finished run, loaded for use
``judgement.py``    figures of predictions: per class, calibration, temperature
``pictures.py``     confusion, reliability, curves
``tables.py``       Markdown tables
``files.py``        files that are written whole or not at all
``methods/``        one file per method: its state, its loss, its update after a step
``commands/``       one file per command for finished runs
``card/``           the card that compares several runs
==================  ============================================================================
"""
