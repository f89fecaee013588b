"""The JSON API: its operations, how they are declared, and the document that describes them."""
