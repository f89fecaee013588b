"""Examine the whole set-up and say what is wrong with it: one file for each area of questions.

A check is a function that takes a `Setup` and yields findings. It asks the code that already
answers a question elsewhere, and adds a sentence and an advice.
"""
