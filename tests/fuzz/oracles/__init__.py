"""The formulas of the papers in plain float64 torch, one function a loss; none imports the package.

An oracle takes the arguments of a call as attributes, defaults included, with every floating tensor
in float64. Elements that are ignored or weigh 0 are taken out before anything is computed, so that
nothing they hold can have a part in the result. Where a textbook form subtracts nearly equal
numbers, the same number is written without that subtraction, and the comment says how.
"""
