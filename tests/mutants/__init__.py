"""Small wrongs put into ``aptt.core`` and ``aptt.loss``, one at a time: do the tests see each?"""
