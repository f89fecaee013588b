"""What tests share. Nothing here calls the code under test to say what is right."""
