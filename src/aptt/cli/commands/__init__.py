"""One file per command: ``configure(parser)`` adds its arguments, ``run(args)`` does the work.

A command's file is imported only when the command is called, and imports what is heavy only inside
``run``, so that every ``--help`` answers at once. To add one, write its file and name it here.
"""

__all__ = ["COMMANDS"]

COMMANDS = {
    "list": "every loss, one line each",
    "show": "one loss: formula, shapes, paper, when to use it",
    "plot": "a picture of a loss and its gradient",
    "audit": "hold a loss to its promises: one of ours, or anyone's",
    "train": "train small models on real data and write a report",
    "compare": "one task with several losses over several seeds",
}
