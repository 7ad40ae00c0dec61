"""What is asked and what is answered, as callers see it."""
