"""The operator's commands. They look at a running relay from outside, and run none of it."""
