"""The path of every delivery: stored, admitted, run. These statements are hot."""
