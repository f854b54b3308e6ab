"""The operator's commands. They inspect a running relay from outside and run no part of it."""
