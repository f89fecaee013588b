"""A simulated sender, to try the pipeline with. It follows the sender's documented rules.

Nothing that receives, stores or processes events imports this package.
"""
