"""What every delivery passes on its way: stored, admitted, worked on. The hot statements."""
