"""One training program for every method: ``python -m examples.train METHOD --data ...``.

==================  ============================================================================
``__main__.py``     the commands; errors in one line
``options.py``      every option, from the command line or a YAML file
``data.py``         data sets, label noise, images decoded once, the order of an epoch
``views.py``        crop, mirror and erase this process's share of a batch
``weights.py``      the network and its start weights, with a report of what was loaded
``optimizer.py``    optimizer and schedule
``landmarks.py``    landmarks of a data set
``transition.py``   verified labels, and how often labels are wrong
``memory.py``       what a teacher said of each face, and what that tells of its label
``terms.py``        losses by their text
``devices.py``      Lightning Fabric for devices, processes and precision
``processes.py``    what several processes share, and a batch taken in parts
``engine.py``       the one loop
``evaluation.py``   what a classifier makes of a data set
``run_folder.py``   the folder of a run: config.yaml, resume.pt, run.json, metrics.csv
``predictions.py``  what a finished run predicts for the set it was evaluated on
``seeds.py``        one training for each seed
``trained.py``      a finished run, ready to be used
``judgement.py``    figures of predictions: per class, calibration, temperature
``pictures.py``     confusion, reliability, curves
``methods/``        a file for each method: what it holds, its loss, what follows a step
``commands/``       a file for each command on finished runs
``card/``           the card of several runs
==================  ============================================================================
"""
