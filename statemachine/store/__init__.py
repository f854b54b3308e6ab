"""Where sessions and their commands are kept in Redis. It decides nothing: that is `statemachine.machine`."""
