"""Images and histories -> text."""
