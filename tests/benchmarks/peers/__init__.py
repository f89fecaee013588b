"""Other task queues at the textbook's work, each as its own guide would have it."""
