"""The console's pages: one file a page, with its handlers and its view model."""
